// Members joined into one, compared with what zlib makes of it.

#include "gzip_join.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "core/chunk.h"
#include "random.h"

namespace herald {
namespace {

std::string member_of(std::string_view content) {
    std::string member(compress_bound(Compression::kGzip, content.size()), '\0');
    member.resize(compress(Compression::kGzip, content, member.data(), member.size()));
    return member;
}

// A member as gzip itself makes it: its data end where they end.
std::string plain_member(std::string_view content) {
    std::string member(content.size() + 100, '\0');
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
    stream.avail_in = static_cast<uInt>(content.size());
    stream.next_out = reinterpret_cast<Bytef*>(member.data());
    stream.avail_out = static_cast<uInt>(member.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    member.resize(stream.total_out);
    deflateEnd(&stream);
    return member;
}

std::string random_content(test::Random& random) {
    const auto size = static_cast<std::size_t>(
        random.chance(0.2) ? random.number(100'000, kMaxChunk) : random.number(1, 3000));
    std::string content(size, '\0');
    const std::int64_t most = random.chance(0.5) ? 255 : random.number(0, 3);
    for (char& c : content) c = static_cast<char>(random.number(0, most));
    return content;
}

TEST(GzipJoin, GivesOneMember) {
    test::Random random("joined gzip");
    for (int run = 0; run < 100; ++run) {
        GzipJoin join;
        std::string joined;
        std::string whole;
        std::uint64_t stored = 0;
        const std::int64_t members = random.number(1, 8);
        for (std::int64_t n = 0; n < members; ++n) {
            const std::string content = random_content(random);
            const std::string member = member_of(content);
            const auto part = join.add(member, content.size());
            ASSERT_TRUE(part);
            joined += *part;
            whole += content;
            stored += member.size();
        }
        joined += join.end();
        EXPECT_EQ(joined.size(), GzipJoin::length(stored, static_cast<std::uint64_t>(members)));
        // True only if there is exactly one member, with nothing behind it.
        std::string back(whole.size(), '?');
        ASSERT_TRUE(decompress(Compression::kGzip, joined, back.data(), back.size()));
        EXPECT_TRUE(back == whole);
    }
}

TEST(GzipJoin, OfOneMemberIsThatMember) {
    const std::string member = member_of("hello");
    GzipJoin join;
    const std::string part(join.add(member, 5).value());
    EXPECT_EQ(part + join.end(), member);
    EXPECT_EQ(GzipJoin::length(member.size(), 1), member.size());
}

TEST(GzipJoin, RefusesWhatIsOfAnotherForm) {
    const std::string member = member_of("hello");
    for (const std::string& other :
         {std::string(), plain_member("hello"), member + member, member.substr(1),
          member.substr(0, member.size() - 1), member.substr(0, 10), member + "x"}) {
        for (const bool first : {true, false}) {
            GzipJoin join;
            if (!first) {
                ASSERT_TRUE(join.add(member, 5));
            }
            EXPECT_EQ(join.add(other, other == member + member ? 10 : 5), std::nullopt);
        }
    }
    GzipJoin join;
    EXPECT_EQ(join.add(member, 6), std::nullopt) << "a content of another length";
}

}  // namespace
}  // namespace herald
