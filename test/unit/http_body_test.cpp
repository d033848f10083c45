#include "http_body.h"

#include <gtest/gtest.h>

#include <string>

#include "random.h"

namespace herald {
namespace {

struct Outcome {
    std::string content;
    int status = 0;
    bool complete = false;
    std::size_t used = 0;
};

Outcome read(std::optional<std::uint64_t> length, std::string_view bytes,
             std::size_t piece = 1 << 20, std::size_t room = 1 << 20) {
    HttpBody body(length);
    Outcome outcome;
    while (outcome.used < bytes.size() && !body.complete() && body.failure().status == 0) {
        std::string_view content;
        const std::size_t used = body.feed(bytes.substr(outcome.used, piece), room, content);
        EXPECT_GT(used, 0U);
        EXPECT_LE(content.size(), room);
        outcome.used += used;
        outcome.content += content;
    }
    outcome.status = body.failure().status;
    outcome.complete = body.complete();
    return outcome;
}

Outcome chunks(const std::string& bytes) {
    return read(std::nullopt, bytes);
}

TEST(HttpBody, EndsAtItsLength) {
    const Outcome outcome = read(5, "helloGET /");
    EXPECT_EQ(outcome.content, "hello");
    EXPECT_TRUE(outcome.complete);
    EXPECT_EQ(outcome.used, 5U);
    EXPECT_FALSE(read(5, "hell").complete);
    EXPECT_TRUE(HttpBody(0).complete());
    std::string_view content;
    HttpBody huge(UINT64_MAX);
    EXPECT_EQ(huge.feed("abc", 2, content), 2U);
    EXPECT_EQ(content, "ab");
}

TEST(HttpBody, Chunks) {
    const std::string whole =
        "5;a=\"b\"\r\nhello\r\n00A \t;x\r\n, world!!\n\r\n0\r\nX: y\r\nZ:\r\n\r\n";
    for (const std::size_t piece : {1U, 2U, 7U, 1000U}) {
        for (const std::size_t room : {1U, 3U, 1000U}) {
            const Outcome outcome = read(std::nullopt, whole + "GET", piece, room);
            EXPECT_EQ(outcome.content, "hello, world!!\n");
            EXPECT_TRUE(outcome.complete);
            EXPECT_EQ(outcome.used, whole.size());
        }
    }
    EXPECT_TRUE(chunks("0\r\n\r\n").complete);
    EXPECT_FALSE(chunks("0\r\n\r").complete);
}

TEST(HttpBody, FramingIsStrict) {
    for (const char* bad :
         {"\r\n", ";\r\n", "x\r\n", "-1\r\n", "0x5\r\nhello\r\n", " 5\r\nhello\r\n", "5\nhello\r\n",
          "5\r\nhelloX\r\n", "5\r\nhello\rX", "5\r\nhello\n0\r\n\r\n", "5 5\r\n", "5 \r\nhello\r\n",
          "5;a\nb\r\n", "5;\x01\r\n", "5\rX", "0\r\nX: a\nb\r\n\r\n", "0\r\n\rX", "0\r\nX:\rX"}) {
        const Outcome outcome = chunks(bad);
        EXPECT_EQ(outcome.status, 400) << bad;
        EXPECT_FALSE(outcome.complete) << bad;
    }
    EXPECT_EQ(chunks("FFFFFFFFFFFFFFFF\r\n").status, 413);
    EXPECT_EQ(chunks("10000000000000000\r\n").status, 413) << "it does not overflow to 0";
    EXPECT_EQ(chunks("00000000000000000005\r\nhello\r\n0\r\n\r\n").content, "hello");
}

TEST(HttpBody, FramingIsBounded) {
    EXPECT_EQ(chunks("5;" + std::string(100'000, 'x')).status, 431);
    std::string trailers = "0\r\n";
    for (int i = 0; i < 10'000; ++i) trailers += "X: y\r\n";
    EXPECT_EQ(chunks(trailers).status, 431);
    std::string costly;
    for (int i = 0; i < 10'000; ++i) costly += "1;" + std::string(100, 'x') + "\r\na\r\n";
    EXPECT_EQ(chunks(costly).status, 400);
    std::string single;
    for (int i = 0; i < 10'000; ++i) single += "1\r\na\r\n";
    EXPECT_EQ(chunks(single + "0\r\n\r\n").content.size(), 10'000U)
        << "small chunks alone are fine";
}

TEST(HttpBody, RandomChunksInRandomPieces) {
    test::Random random("chunks");
    for (int run = 0; run < 300; ++run) {
        std::string wire;
        std::string model;
        for (auto left = random.number(0, 20); left > 0; --left) {
            const std::string content = random.text("abc\r\n0", 1, 300);
            char size[32];
            std::snprintf(size, sizeof size, random.chance(0.5) ? "%zx" : "%zX", content.size());
            wire +=
                size + std::string(random.chance(0.3) ? ";ext" : "") + "\r\n" + content + "\r\n";
            model += content;
        }
        wire += "0\r\n\r\n";
        HttpBody body(std::nullopt);
        std::string got;
        std::string_view rest = wire;
        while (!body.complete()) {
            ASSERT_EQ(body.failure().status, 0);
            ASSERT_FALSE(rest.empty());
            std::string_view content;
            rest.remove_prefix(
                body.feed(rest.substr(0, static_cast<std::size_t>(random.number(1, 50))),
                          static_cast<std::size_t>(random.number(1, 50)), content));
            got += content;
        }
        EXPECT_TRUE(rest.empty());
        EXPECT_EQ(got, model);
    }
}

}  // namespace
}  // namespace herald
