#include "http_fields.h"

#include <gtest/gtest.h>

namespace herald {
namespace {

using Kind = RangeChoice::Kind;

Request with(const std::string& name, std::vector<std::string> values) {
    Request request;
    for (std::string& value : values) request.headers.emplace_back(name, std::move(value));
    return request;
}

TEST(HttpFields, Ranges) {
    const auto part = [](std::string_view field, std::uint64_t from, std::uint64_t length) {
        const RangeChoice choice = choose_range(field, 1000);
        EXPECT_EQ(choice.kind, Kind::kPart) << field;
        EXPECT_EQ(choice.from, from) << field;
        EXPECT_EQ(choice.length, length) << field;
    };
    part("bytes=0-", 0, 1000);
    part("bytes=0-0", 0, 1);
    part("BYTES=999-", 999, 1);
    part("bytes= 10-19 ", 10, 10);
    part("bytes=500-99999999999999999999999", 500, 500);
    part("bytes=-1", 999, 1);
    part("bytes=-5000", 0, 1000);
    for (const char* none : {"bytes=1000-", "bytes=99999999999999999999-", "bytes=-0"})
        EXPECT_EQ(choose_range(none, 1000).kind, Kind::kUnsatisfiable) << none;
    EXPECT_EQ(choose_range("bytes=0-", 0).kind, Kind::kUnsatisfiable);
    EXPECT_EQ(choose_range("bytes=-1", 0).kind, Kind::kUnsatisfiable);
    for (const char* ignored :
         {"", "bytes", "bytes=", "bytes=-", "bytes=x-", "bytes=1-x", "bytes=2-1", "bytes=0-1,5-6",
          "bytes=+1-2", "bytes=1--2", "lines=0-1", "bytes=1"})
        EXPECT_EQ(choose_range(ignored, 1000).kind, Kind::kWhole) << ignored;
}

TEST(HttpFields, EntityTags) {
    const std::string tag = "\"sha256:ab\"";
    const auto listed = [&](std::vector<std::string> values, bool weak = true) {
        return lists_etag(with("if-none-match", std::move(values)), "if-none-match", tag, weak);
    };
    EXPECT_TRUE(listed({tag}));
    EXPECT_TRUE(listed({"\"a\", W/" + tag}));
    EXPECT_TRUE(listed({"\"a\"", "\"b,c\" , " + tag + ","}));
    EXPECT_TRUE(listed({"*"}));
    EXPECT_FALSE(listed({"W/" + tag}, false));
    EXPECT_FALSE(listed({"sha256:ab", "\"x, " + tag.substr(1) + "\""}));
    EXPECT_FALSE(listed({}));
}

TEST(HttpFields, Codings) {
    const auto accepts = [](std::vector<std::string> values) {
        return accepts_coding(with("accept-encoding", std::move(values)), "zstd");
    };
    EXPECT_TRUE(accepts({"gzip, ZSTD"}));
    EXPECT_TRUE(accepts({"gzip", "zstd;q=0.5"}));
    EXPECT_TRUE(accepts({"zstd ; q=1"}));
    for (const char* no : {"", "*", "zstd;q=0", "zstd; q=0.000", "xzstd", "zstd;x=1", "gzip"})
        EXPECT_FALSE(accepts({no})) << no;
}

TEST(HttpFields, StructuredValues) {
    EXPECT_EQ(structured_boolean(" ?1 "), true);
    EXPECT_EQ(structured_boolean("?0"), false);
    for (const char* bad : {"", "1", "?2", "true", "?1;a"})
        EXPECT_EQ(structured_boolean(bad), std::nullopt) << bad;
    EXPECT_EQ(structured_integer("0"), 0U);
    EXPECT_EQ(structured_integer(" 999999999999999"), 999'999'999'999'999U);
    for (const char* bad : {"", "-1", "1.0", "x", "1000000000000000", "99999999999999999999999"})
        EXPECT_EQ(structured_integer(bad), std::nullopt) << bad;
}

TEST(HttpFields, Digests) {
    // SHA-256 of "hello".
    const std::string field = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    const auto digest = [](std::vector<std::string> values) {
        return read_digest(with("repr-digest", std::move(values)), "repr-digest");
    };
    const DigestField found = digest({"sha-512=:AA==:, " + field});
    ASSERT_TRUE(found.sha256);
    EXPECT_EQ(hex_of(*found.sha256),
              "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    EXPECT_EQ(digest_field(*found.sha256), field);
    EXPECT_FALSE(digest({}).present);
    for (const char* bad :
         {"", "sha-512=:AA==:", "sha-256=:AA==:",
          "sha-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
          "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=", "sha-256=:****:",
          "sha-256=:LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"}) {
        EXPECT_TRUE(digest({bad}).present) << bad;
        EXPECT_FALSE(digest({bad}).sha256) << bad;
    }
    for (std::size_t size = 0; size < 40; ++size) {
        const std::string bytes(size, '\xfe');
        EXPECT_EQ(bytes_of_hex(hex_of(bytes)), bytes);
    }
    EXPECT_EQ(bytes_of_hex("abc"), std::nullopt);
    EXPECT_EQ(bytes_of_hex("zz"), std::nullopt);
}

TEST(HttpFields, MediaTypes) {
    for (const char* good : {"image/png", "text/plain; charset=utf-8", "application/vnd.x+json",
                             "text/plain ;a=\"b c\""})
        EXPECT_TRUE(is_media_type(good)) << good;
    for (const char* bad :
         {"", "text", "/", "text/", "/plain", "text /plain", "text/pl ain",
          "text/plain;\r\nSet-Cookie: a", "text/plain; \x7f", "text/\xc3\xbc", "a/b/c"})
        EXPECT_FALSE(is_media_type(bad)) << bad;
    EXPECT_FALSE(is_media_type("text/" + std::string(200, 'a')));
}

}  // namespace
}  // namespace herald
