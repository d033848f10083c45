#include "protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace herald {
namespace {

using nlohmann::json;

template <typename Kind>
Kind good(const std::string& text, std::string_view sender = "") {
    auto parsed = parse_client_frame(text, sender);
    if (const auto* refusal = std::get_if<Refusal>(&parsed)) {
        ADD_FAILURE() << text << ": " << refusal->error.message;
        return {};
    }
    auto& request = std::get<ClientFrame>(parsed).request;
    if (!std::holds_alternative<Kind>(request)) {
        ADD_FAILURE() << text << ": another kind";
        return {};
    }
    return std::get<Kind>(request);
}

Refusal bad(const std::string& text) {
    auto parsed = parse_client_frame(text, "");
    const auto* refusal = std::get_if<Refusal>(&parsed);
    if (refusal != nullptr) return *refusal;
    ADD_FAILURE() << text << " was accepted";
    return {};
}

std::string id_of(const std::string& text) {
    auto parsed = parse_client_frame(text, "");
    return std::get<ClientFrame>(parsed).id;
}

TEST(Protocol, Sub) {
    const auto plain = good<SubRequest>(R"({"op":"sub","topic":"agent:*"})");
    EXPECT_EQ(plain.topic, "agent:*");
    EXPECT_FALSE(plain.after);
    EXPECT_FALSE(plain.last);
    EXPECT_EQ(good<SubRequest>(R"( { "op" : "sub" , "topic" : "a" , "after" : 118 } )").after, 118);
    EXPECT_EQ(good<SubRequest>(R"({"op":"sub","topic":"a","after":0})").after, 0);
    EXPECT_EQ(good<SubRequest>(R"({"op":"sub","topic":"a","after":9007199254740991})").after,
              kMaxPosition);
    EXPECT_EQ(good<SubRequest>(R"({"op":"sub","topic":"a","last":10000})").last, 10000);
    EXPECT_FALSE(good<SubRequest>(R"({"op":"sub","topic":"a","after":null})").after);
    EXPECT_EQ(good<SubRequest>(R"({"\u006fp":"sub","t\u006fpic":"\u00fc"})").topic, "ü");
}

TEST(Protocol, IdIsEchoedAsGiven) {
    EXPECT_EQ(id_of(R"({"op":"unsub","topic":"a","id":1})"), "1");
    EXPECT_EQ(id_of(R"({"op":"unsub","topic":"a","id":-12345678901234567890})"),
              "-12345678901234567890");
    EXPECT_EQ(id_of(R"({"op":"unsub","topic":"a","id":"x\u0041\n"})"), R"("x\u0041\n")");
    EXPECT_EQ(id_of(R"({"op":"unsub","topic":"a","id":null})"), "");
    EXPECT_EQ(id_of(R"({"op":"unsub","topic":"a"})"), "");
    for (const char* id : {"1.5", "1e3", "true", "[1]", "{}"})
        EXPECT_EQ(bad(std::string(R"({"op":"unsub","topic":"a","id":)") + id + "}").error.field,
                  "id");
    EXPECT_EQ(
        bad(R"({"op":"unsub","topic":"a","id":")" + std::string(300, 'x') + "\"}").error.field,
        "id");
}

TEST(Protocol, RefusalsCarryTheId) {
    EXPECT_EQ(bad(R"({"op":"sub","id":7})").id, "7");
    EXPECT_EQ(bad(R"({"op":"nonsense","id":"q"})").id, "\"q\"");
    EXPECT_EQ(bad("not json").id, "");
}

TEST(Protocol, NotAFrame) {
    for (const char* text : {"", " ", "x", "{", "{}x", "[]", "\"op\"", "1", "null", "{\"op\"}",
                             "{'op':'sub'}", R"({"op":"sub",})", R"({"op":"sub"}{})",
                             "\xEF\xBB\xBF{}", R"({"op":"sub","topic":"a","after":1e999})"}) {
        const Error error = bad(text).error;
        EXPECT_EQ(error.code, "invalid") << text;
        EXPECT_EQ(error.field, "") << text;
    }
    EXPECT_EQ(bad(std::string("{}\0", 3)).error.code, "invalid");
    EXPECT_EQ(bad(std::string("{\"op\":\"s\0b\"}", 12)).error.code, "invalid");
}

TEST(Protocol, DeepNestingIsRefused) {
    const auto nested = [](int depth) {
        return R"({"op":"send","topic":"a","payload":)" +
               std::string(static_cast<std::size_t>(depth), '[') +
               std::string(static_cast<std::size_t>(depth), ']') + "}";
    };
    good<SendRequest>(nested(kMaxNesting - 1));
    EXPECT_EQ(bad(nested(kMaxNesting)).error.code, "invalid");
    EXPECT_EQ(bad(nested(100'000)).error.code, "invalid");
    EXPECT_EQ(bad(std::string(1'000'000, '{')).error.code, "invalid");
    good<SendRequest>(R"({"op":"send","content":")" + std::string(1000, '[') + "\"}");
}

TEST(Protocol, OpFaults) {
    EXPECT_EQ(bad("{}").error.field, "op");
    EXPECT_EQ(bad(R"({"op":1})").error.field, "op");
    EXPECT_EQ(bad(R"({"op":null})").error.field, "op");
    const Error unknown = bad(R"({"op":"frobnicate"})").error;
    EXPECT_EQ(unknown.code, "unknown_op");
    EXPECT_NE(unknown.message.find("frobnicate"), std::string::npos);
    const std::string long_op = bad(R"({"op":")" + std::string(49, 'x') + "€€\"}").error.message;
    EXPECT_NO_THROW(json(long_op).dump()) << "quoted text is cut on a character";
}

TEST(Protocol, TopicFaults) {
    for (const char* topic : {"1", "null", "[]", R"("")", R"("a[b]")", R"("a\\b")", R"("a\nb")"}) {
        const Error error = bad(std::string(R"({"op":"sub","topic":)") + topic + "}").error;
        EXPECT_EQ(error.code, "invalid") << topic;
        EXPECT_EQ(error.field, "topic") << topic;
    }
    EXPECT_EQ(bad(R"({"op":"sub"})").error.message, "topic is missing");
    EXPECT_EQ(bad(R"({"op":"unsub"})").error.field, "topic");
    EXPECT_EQ(bad(R"({"op":"sub","topic":"a[b]"})").error.message,
              "pattern character [ is not known");
    EXPECT_EQ(bad(R"({"op":"sub","topic":")" + std::string(201, 'a') + "\"}").error.field, "topic");
}

TEST(Protocol, SubFaults) {
    for (const char* value :
         {"-1", "1.5", "\"1\"", "true", "9007199254740992", "99999999999999999999", "1e2", "[]"}) {
        const std::string rest = std::string(value) + "}";
        EXPECT_EQ(bad(R"({"op":"sub","topic":"a","after":)" + rest).error.field, "after") << value;
        EXPECT_EQ(bad(R"({"op":"sub","topic":"a","last":)" + rest).error.field, "last") << value;
    }
    EXPECT_EQ(bad(R"({"op":"sub","topic":"a","last":0})").error.field, "last");
    EXPECT_EQ(bad(R"({"op":"sub","topic":"a","last":10001})").error.field, "last");
    EXPECT_EQ(bad(R"({"op":"sub","topic":"a","last":1,"after":1})").error.field, "last");
    EXPECT_EQ(bad(R"({"op":"sub","topic":"a","afer":1})").error.field, "afer");
    EXPECT_EQ(bad(R"({"op":"unsub","topic":"a","after":1})").error.field, "after");
}

TEST(Protocol, SendPassesMembersOnAsWritten) {
    EXPECT_EQ(good<SendRequest>(R"({"op":"send","id":3,"recipient":"42","content":"hi"})").message,
              R"({"recipient":"42","content":"hi"})");
    EXPECT_EQ(good<SendRequest>(
                  R"({ "topic":"t" ,"op":"send","payload": {"n":123456789012345678901234.50} })")
                  .message,
              R"({"topic":"t","payload": {"n":123456789012345678901234.50}})");
    EXPECT_EQ(good<SendRequest>(R"({"op":"send","content":"","unknown":[1, 2]})").message,
              R"({"content":"","unknown":[1, 2]})")
        << "unknown members are the database's to refuse";
    EXPECT_EQ(good<SendRequest>(R"({"op":"send","topic":"t","payload":null})").message,
              R"({"topic":"t","payload":null})");
    EXPECT_EQ(
        good<SendRequest>(R"({"op":"send","content":"a","metadata":{"x":"}"},"ttl":null})").message,
        R"({"content":"a","metadata":{"x":"}"},"ttl":null})");
}

TEST(Protocol, SenderDefaults) {
    EXPECT_EQ(good<SendRequest>(R"({"op":"send","content":"a"})", "me\"").message,
              R"({"content":"a","sender":"me\""})");
    EXPECT_EQ(good<SendRequest>(R"({"op":"send","content":"a","sender":"x"})", "me").message,
              R"({"content":"a","sender":"x"})");
}

TEST(Protocol, SendFaults) {
    for (const char* key :
         {"sender", "recipient", "message_type", "conversation", "topic", "workspace", "reply_to",
          "ordering_key", "deliver_at", "ttl", "idempotency_key"})
        for (const char* value : {"1", "true", "[]", "{}"})
            EXPECT_EQ(
                bad(std::string(R"({"op":"send","content":"a",")") + key + "\":" + value + "}")
                    .error.field,
                key);
    for (const char* value : {"1", "null", "{}", "[]"})
        EXPECT_EQ(
            bad(std::string(R"({"op":"send","topic":"a","content":)") + value + "}").error.field,
            "content");
    for (const char* value : {"1", "\"x\"", "[]"})
        EXPECT_EQ(
            bad(std::string(R"({"op":"send","content":"a","metadata":)") + value + "}").error.field,
            "metadata");
    for (const char* value : {"1.5", "\"x\"", "[]", "99999999999"})
        EXPECT_EQ(
            bad(std::string(R"({"op":"send","content":"a","priority":)") + value + "}").error.field,
            "priority");
    EXPECT_EQ(bad(R"({"op":"send"})").error.field, "content");
    EXPECT_EQ(bad(R"({"op":"send","payload":1})").error.field, "topic");
    EXPECT_EQ(bad(R"({"op":"send","topic":"t","payload":1,"content":"a"})").error.field, "payload");
}

TEST(Protocol, Builders) {
    EXPECT_EQ(ok_sub_frame("1", "agent:*", 121),
              R"({"op":"ok","id":1,"topic":"agent:*","pos":121})");
    EXPECT_EQ(ok_sub_frame("", "a\"", 0), R"({"op":"ok","topic":"a\"","pos":0})");
    EXPECT_EQ(ok_unsub_frame("\"x\"", "a"), R"({"op":"ok","id":"x","topic":"a"})");
    EXPECT_EQ(ok_send_frame("3", "0198"), R"({"op":"ok","id":3,"message":"0198"})");
    EXPECT_EQ(gap_frame("agent:*", 100, 118, "retention"),
              R"({"op":"gap","topic":"agent:*","from":100,"to":118,"why":"retention"})");
    EXPECT_EQ(bye_frame(4009, true, 3200, "too slow"),
              R"({"op":"bye","code":4009,"reconnect":true,"after_ms":3200,"why":"too slow"})");
    EXPECT_EQ(err_frame("3", {.code = "unavailable",
                              .message = "away",
                              .hint = {},
                              .sqlstate = {},
                              .field = {},
                              .retry_ms = 500}),
              R"({"op":"err","id":3,"code":"unavailable","message":"away","retry_ms":500})");
    EXPECT_EQ(
        err_frame(
            "",
            {.code = "rejected", .message = "m", .hint = "h", .sqlstate = "22023", .field = "ttl"}),
        R"({"op":"err","code":"rejected","message":"m","field":"ttl","sqlstate":"22023",)"
        R"("hint":"h"})");
}

}  // namespace
}  // namespace herald
