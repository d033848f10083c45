#include "output.h"

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <string>

#include "random.h"

namespace herald {
namespace {

std::string gathered(const Output& output, std::size_t limit) {
    std::array<uv_buf_t, 256> buffers{};
    std::string result;
    const std::size_t count = output.gather({buffers.data(), limit});
    for (std::size_t i = 0; i < count; ++i) result.append(buffers[i].base, buffers[i].len);
    return result;
}

TEST(Output, KeepsPartialWrites) {
    OutputPool pool;
    Output output(pool);
    output.push(Frame::raw("hello"));
    output.push(Frame::raw("world"));
    output.consume(3);
    EXPECT_EQ(output.bytes(), 7U);
    EXPECT_EQ(gathered(output, 256), "loworld");
    output.consume(2);
    EXPECT_EQ(gathered(output, 256), "world");
    output.consume(5);
    EXPECT_TRUE(output.empty());
    EXPECT_EQ(output.bytes(), 0U);
}

TEST(Output, DropKeepsOnlyAFrameThatIsPartlyWritten) {
    OutputPool pool;
    Output output(pool);
    output.push(Frame::raw("hello"));
    output.push(Frame::raw("world"));
    output.consume(2);
    output.drop_unsent(false);
    EXPECT_EQ(gathered(output, 256), "llo");
    EXPECT_EQ(output.bytes(), 3U);
    output.consume(3);
    output.push(Frame::raw("a"));
    output.push(Frame::raw("b"));
    output.drop_unsent(true);
    EXPECT_EQ(gathered(output, 256), "a");
    output.drop_unsent(false);
    EXPECT_TRUE(output.empty());
}

TEST(Output, RandomWritesAgainstAString) {
    test::Random random("output");
    OutputPool pool;
    Output output(pool);
    std::string model;
    for (int step = 0; step < 20'000; ++step) {
        if (random.chance(0.5)) {
            const std::string bytes = random.text("abcdef", 1, 9);
            output.push(Frame::raw(bytes));
            model += bytes;
        } else if (!model.empty()) {
            const auto limit = static_cast<std::size_t>(random.number(1, 256));
            const std::string front = gathered(output, limit);
            ASSERT_EQ(front, model.substr(0, front.size()));
            const auto written =
                static_cast<std::size_t>(random.number(0, static_cast<int>(front.size())));
            output.consume(written);
            model.erase(0, written);
        }
        ASSERT_EQ(output.bytes(), model.size());
        ASSERT_EQ(output.empty(), model.empty());
    }
}

}  // namespace
}  // namespace herald
