// extension/core as the notifier sees it: JSON escaping, the envelope, UUIDs.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "core/envelope.h"
#include "core/json_escape.h"
#include "core/uuid.h"
#include "random.h"

namespace herald {
namespace {

using nlohmann::json;

std::string escaped(std::string_view text) {
    std::string result;
    write_json_string(result, text);
    return result;
}

std::string enveloped(const MessageView& message, EnvelopeForm form = EnvelopeForm::kFull) {
    std::string result;
    write_envelope(result, message, form, "abc123");
    return result;
}

MessageView small_message() {
    MessageView message;
    message.pos = 1042;
    message.id = make_uuid_v7(1'800'000'000'000'000, 0);
    message.topic = "agent:42:inbox";
    message.at_us = 1'795'000'000'123'456;
    message.message_type = "request";
    message.content = "hi \"there\"\n";
    return message;
}

TEST(JsonEscape, OnlyWhatMustBe) {
    EXPECT_EQ(escaped(""), R"("")");
    EXPECT_EQ(escaped("a/b é € 𝄞 <>"), R"("a/b é € 𝄞 <>")");
    EXPECT_EQ(escaped("\"\\"), R"("\"\\")");
    EXPECT_EQ(escaped("\b\f\n\r\t"), R"("\b\f\n\r\t")");
    EXPECT_EQ(json::parse(escaped(std::string_view("\0\x01\x1F\x7F", 4))).get<std::string>(),
              std::string("\0\x01\x1F\x7F", 4));
}

TEST(JsonEscape, EveryParserReadsItBack) {
    test::Random random("json escape");
    for (int run = 0; run < 5000; ++run) {
        const std::string text = random.text(std::string_view("ab\"\\\n\t\0\x01\x1F/", 10), 0, 30);
        ASSERT_EQ(json::parse(escaped(text)).get<std::string>(), text);
    }
}

TEST(Envelope, OfAPayloadHasItsReferenceInEveryForm) {
    MessageView message = small_message();
    message.content = R"({"bytes":5,"checksum":"sha256:00","content_type":"a/b","href":"/x"})";
    message.content_is_json = true;
    message.content_is_reference = true;
    message.metadata = R"({"a":1})";
    for (const EnvelopeForm form :
         {EnvelopeForm::kFull, EnvelopeForm::kReference, EnvelopeForm::kBareReference}) {
        const json envelope = json::parse(enveloped(message, form));
        EXPECT_EQ(envelope["ref"], json::parse(message.content));
        EXPECT_FALSE(envelope.contains("content"));
        EXPECT_EQ(envelope.contains("metadata"), form != EnvelopeForm::kBareReference);
    }
}

TEST(Envelope, OrderAndAbsence) {
    EXPECT_EQ(enveloped(small_message()),
              R"({"pos":1042,"id":"01a3185c-5000-7000-8000-000000000000","topic":"agent:42:inbox",)"
              R"("type":"request","at":"2026-11-18T11:06:40.123456Z","content":"hi \"there\"\n"})");
    MessageView full = small_message();
    full.sender = "pm";
    full.recipient = "";
    full.conversation = "c";
    full.content = R"({"n":1.10})";
    full.content_is_json = true;
    full.metadata = R"({"k": [1]})";
    full.reply_to = full.id;
    full.priority = 5;
    full.ordering_key = "key";
    full.expires_us = 0;
    std::vector<std::string> keys;
    const auto parsed = nlohmann::ordered_json::parse(enveloped(full));
    for (const auto& [key, value] : parsed.items()) keys.push_back(key);
    EXPECT_EQ(keys, (std::vector<std::string>{"pos", "id", "topic", "type", "sender", "recipient",
                                              "conversation", "at", "content", "metadata",
                                              "reply_to", "priority", "key", "expires_at"}));
    EXPECT_NE(enveloped(full).find(R"("content":{"n":1.10},"metadata":{"k": [1]})"),
              std::string::npos)
        << "JSON is passed on as it is";
    EXPECT_EQ(parsed["expires_at"], "1970-01-01T00:00:00.000000Z");
}

TEST(Envelope, ReferenceForms) {
    MessageView message = small_message();
    message.metadata = "{}";
    const json reference = json::parse(enveloped(message, EnvelopeForm::kReference));
    EXPECT_FALSE(reference.contains("content"));
    EXPECT_EQ(reference["ref"]["bytes"], message.content.size());
    EXPECT_EQ(reference["ref"]["checksum"], "sha256:abc123");
    EXPECT_EQ(reference["ref"]["href"], "/messages/" + reference["id"].get<std::string>());
    EXPECT_TRUE(reference.contains("metadata"));
    EXPECT_FALSE(
        json::parse(enveloped(message, EnvelopeForm::kBareReference)).contains("metadata"));
}

TEST(Envelope, Timestamps) {
    EXPECT_EQ(timestamp_text(0).view(), "1970-01-01T00:00:00.000000Z");
    EXPECT_EQ(timestamp_text(-1).view(), "1969-12-31T23:59:59.999999Z");
    EXPECT_EQ(timestamp_text(951'782'400'000'000).view(), "2000-02-29T00:00:00.000000Z");
    EXPECT_EQ(timestamp_text(4'102'444'799'999'999).view(), "2099-12-31T23:59:59.999999Z");
    EXPECT_EQ(timestamp_text(-62'135'596'800'000'000).view(), "0001-01-01T00:00:00.000000Z");
    EXPECT_EQ(timestamp_text(253'402'300'800'000'000).view(), "10000-01-01T00:00:00.000000Z");
}

TEST(Uuid, VersionSevenSortedByTime) {
    const std::int64_t now = 1'795'000'000'123'456;
    const UuidBytes uuid = make_uuid_v7(now, UINT64_MAX);
    const auto text = uuid_text(uuid);
    const std::string_view view(text.data(), text.size());
    EXPECT_TRUE(is_uuid_text(view));
    EXPECT_EQ(view[14], '7');
    EXPECT_NE(std::string_view("89ab").find(view[19]), std::string_view::npos);
    EXPECT_EQ(uuid_v7_milliseconds(uuid), now / 1000);
    UuidBytes last = make_uuid_v7(now, UINT64_MAX);
    for (std::int64_t us = now + 1; us < now + 5000; ++us) {
        const UuidBytes next = make_uuid_v7(us, UINT64_MAX);
        ASSERT_LE(last, next);
        last = next;
    }
    EXPECT_GT(make_uuid_v7(now + 1000, 0), uuid);
}

TEST(Uuid, Text) {
    EXPECT_TRUE(is_uuid_text("0198ABCD-0000-7000-8000-0123456789ab"));
    for (const char* bad :
         {"", "0198abcd-0000-7000-8000-0123456789a", "0198abcd-0000-7000-8000-0123456789abc",
          "0198abcd00007000800000123456789abcde", "g198abcd-0000-7000-8000-0123456789ab",
          "{198abcd-0000-7000-8000-0123456789ab"})
        EXPECT_FALSE(is_uuid_text(bad)) << bad;
}

}  // namespace
}  // namespace herald
