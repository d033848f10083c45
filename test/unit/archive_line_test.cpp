// Reading lines of an archive: what was written comes back, and whatever else comes is no trouble.

#include "core/archive_line.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "core/envelope.h"
#include "random.h"

namespace herald {
namespace {

using nlohmann::json;

// The members by name; nothing if the text is no object.
std::optional<std::map<std::string, std::string>> members_of(std::string_view text) {
    std::map<std::string, std::string> found;
    JsonMembers members(text);
    while (members.next()) found.emplace(members.name(), members.value());
    if (!members.complete()) return std::nullopt;
    return found;
}

std::optional<std::string> unquoted(std::string_view text) {
    std::string result;
    if (!read_json_string(result, text)) return std::nullopt;
    return result;
}

TEST(ArchiveLine, MembersAsTheyAreWritten) {
    EXPECT_EQ(members_of("{}")->size(), 0U);
    const auto found = members_of(
        R"({"a":1,"b":"x,\"}{","c":{"d":[1,{"e":"]"}]}, "f" : null ,"g":"","h\n":-1.5e3})");
    ASSERT_TRUE(found);
    const std::map<std::string, std::string> expected = {
        {"a", "1"},    {"b", R"("x,\"}{")"}, {"c", R"({"d":[1,{"e":"]"}]})"},
        {"f", "null"}, {"g", R"("")"},       {R"(h\n)", "-1.5e3"}};
    EXPECT_EQ(*found, expected);
}

TEST(ArchiveLine, WhatIsNoObject) {
    for (const char* text : {"",
                             " ",
                             "[]",
                             "1",
                             "{",
                             "}",
                             R"({"a")",
                             R"({"a":)",
                             R"({"a":})",
                             R"({"a":1)",
                             R"({"a":1,})",
                             R"({"a":1 "b":2})",
                             R"({"a":1}x)",
                             R"({"a":1}})",
                             R"({a:1})",
                             R"({"a":])",
                             R"({"a":[1})",
                             R"({"a":"x})",
                             R"({"a":"x\)",
                             R"({,"a":1})"})
        EXPECT_FALSE(members_of(text)) << text;
}

TEST(ArchiveLine, Strings) {
    EXPECT_EQ(unquoted(R"("")"), "");
    EXPECT_EQ(unquoted(R"("a\"\\\/\b\f\n\r\t\u00e9\u20AC\ud834\udd1e")"), "a\"\\/\b\f\n\r\té€𝄞");
    for (const char* text :
         {"", "\"", "x", R"("\")", R"("\u")", R"("\u12")", R"("\u12x4")", R"("\u0000")", R"("\x")",
          R"("\ud834")", R"("\ud834\u0041")", R"("\udd1e")", R"("a"b")", "\"a\nb\""})
        EXPECT_FALSE(unquoted(text)) << text;
}

TEST(ArchiveLine, WhatIsWrittenComesBack) {
    test::Random random("archive line");
    for (int run = 0; run < 5000; ++run) {
        const std::string text =
            random.text(std::string_view("ab\"\\\n\t\x01\x1F/{}[],:\xC3\xA9", 17), 0, 30);
        MessageView message;
        message.pos = run + 1;
        message.topic = "a";
        message.message_type = "t";
        message.content = text;
        std::string line;
        write_envelope(line, message, EnvelopeForm::kFull);
        const auto found = members_of(line);
        ASSERT_TRUE(found) << line;
        ASSERT_EQ(read_integer(found->at("pos")), run + 1);
        ASSERT_EQ(unquoted(found->at("content")), text);
    }
}

TEST(ArchiveLine, AnyBytesAreNoTrouble) {
    test::Random random("archive line, bytes");
    for (int run = 0; run < 20000; ++run) {
        const std::string text = random.text("{}[],:\"\\u0d8a1 n", 0, 24);
        (void)members_of(text);
        (void)members_of("{" + text);
        // What a JSON parser takes for a string is the same string here.
        const std::string quoted = "\"" + text + "\"";
        if (const json parsed = json::parse(quoted, nullptr, false);
            parsed.is_string() && parsed.get<std::string>().find('\0') == std::string::npos) {
            ASSERT_EQ(unquoted(quoted), parsed.get<std::string>()) << quoted;
        } else {
            ASSERT_FALSE(unquoted(quoted)) << quoted;
        }
    }
}

TEST(ArchiveLine, Times) {
    test::Random random("archive line, times");
    for (int run = 0; run < 20000; ++run) {
        // PostgreSQL's times: from 4714 BC to 294276 AD.
        const std::int64_t us = random.number(-210'866'803'200'000'000, 9'223'371'331'199'999'999);
        ASSERT_EQ(read_timestamp(timestamp_text(us).view()), us) << us;
    }
    for (const std::int64_t us :
         {std::int64_t{0}, std::int64_t{-1}, std::int64_t{951'868'799'999'999}})
        EXPECT_EQ(read_timestamp(timestamp_text(us).view()), us);
    for (const char* text :
         {"", "now", "2026-11-21", "2026-11-21T02:40:00Z", "2026-13-21T02:40:00.123456Z",
          "2026-11-32T02:40:00.123456Z", "2026-11-21T24:40:00.123456Z",
          "2026-11-21 02:40:00.123456Z", "2026-11-21T02:40:00.12345xZ",
          "x026-11-21T02:40:00.123456Z", "99999999-11-21T02:40:00.123456Z"})
        EXPECT_FALSE(read_timestamp(text)) << text;
}

TEST(ArchiveLine, Integers) {
    EXPECT_EQ(read_integer("9007199254740991"), 9007199254740991);
    for (const char* text : {"", "-", "1.5", "1 ", " 1", "x", "99999999999999999999"})
        EXPECT_FALSE(read_integer(text)) << text;
}

}  // namespace
}  // namespace herald
