#include "websocket.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "random.h"

namespace herald {
namespace {

constexpr std::size_t kLimit = 1000;

// What the parser reported, one line an event.
class Recorder final : public WebSocketEvents {
  public:
    bool on_message(Opcode opcode, std::string_view payload) override {
        return note((opcode == Opcode::kText ? "text " : "binary ") + std::string(payload));
    }
    bool on_ping(std::string_view payload) override { return note("ping " + std::string(payload)); }
    bool on_pong(std::string_view payload) override { return note("pong " + std::string(payload)); }
    bool on_close(std::uint16_t code, std::string_view reason) override {
        note("close " + std::to_string(code) + " " + std::string(reason));
        return false;
    }
    std::vector<std::string> events;
    std::size_t stop_after = SIZE_MAX;

  private:
    bool note(std::string event) {
        events.push_back(std::move(event));
        return events.size() < stop_after;
    }
};

// A client's frame: masked, with these first two header nibbles.
std::string frame(unsigned first_byte, std::string_view payload, bool masked = true) {
    std::string result(1, static_cast<char>(first_byte));
    const unsigned mask_bit = masked ? 0x80 : 0;
    if (payload.size() < 126) {
        result += static_cast<char>(mask_bit | payload.size());
    } else if (payload.size() < 65536) {
        result += static_cast<char>(mask_bit | 126);
        result += static_cast<char>(payload.size() >> 8);
        result += static_cast<char>(payload.size());
    } else {
        result += static_cast<char>(mask_bit | 127);
        for (int shift = 56; shift >= 0; shift -= 8)
            result += static_cast<char>(static_cast<std::uint64_t>(payload.size()) >> shift);
    }
    if (!masked) return result + std::string(payload);
    const std::string mask = "\x12\x34\x56\x78";
    result += mask;
    for (std::size_t i = 0; i < payload.size(); ++i)
        result += static_cast<char>(payload[i] ^ mask[i % 4]);
    return result;
}

std::string close_frame(unsigned code, std::string_view reason = "") {
    return frame(0x88, std::string{static_cast<char>(code >> 8), static_cast<char>(code)} +
                           std::string(reason));
}

struct Outcome {
    std::vector<std::string> events;
    unsigned code;
    bool idle;
    bool operator==(const Outcome&) const = default;
};

Outcome feed(const std::vector<std::string_view>& pieces) {
    WebSocketParser parser(kLimit);
    Recorder recorder;
    unsigned code = 0;
    for (const std::string_view piece : pieces) {
        code = parser.feed(piece, recorder).code;
        if (code != 0 || (!recorder.events.empty() && recorder.events.back().starts_with("close")))
            break;
    }
    return {recorder.events, code, parser.reusable()};
}

Outcome feed_whole(const std::string& bytes) {
    return feed({std::string_view(bytes)});
}

Outcome feed_bytes(const std::string& bytes) {
    std::vector<std::string_view> pieces;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        pieces.push_back(std::string_view(bytes).substr(i, 1));
    return feed(pieces);
}

void expect_violation(const std::string& bytes, unsigned code) {
    EXPECT_EQ(feed_whole(bytes).code, code);
    EXPECT_EQ(feed_bytes(bytes).code, code) << "byte by byte";
    EXPECT_FALSE(feed_whole(bytes).idle) << "a broken parser goes to nobody else";
}

void expect_events(const std::string& bytes, const std::vector<std::string>& events) {
    EXPECT_EQ(feed_whole(bytes).events, events);
    EXPECT_EQ(feed_bytes(bytes).events, events) << "byte by byte";
    EXPECT_EQ(feed_whole(bytes).code, 0U);
}

using Events = std::vector<std::string>;

TEST(WebSocketParser, Messages) {
    expect_events(frame(0x81, "hello"), {"text hello"});
    expect_events(frame(0x82, "\xFF"), {"binary \xFF"});
    expect_events(frame(0x81, ""), {"text "});
    expect_events(frame(0x81, std::string(kLimit, 'x')), {"text " + std::string(kLimit, 'x')});
    expect_events(frame(0x81, "a") + frame(0x81, "b"), {"text a", "text b"});
}

TEST(WebSocketParser, FragmentsWithControlFramesBetween) {
    expect_events(frame(0x01, "a") + frame(0x89, "p") + frame(0x00, "") + frame(0x8A, "") +
                      frame(0x80, "b") + frame(0x82, "c"),
                  {"ping p", "pong ", "text ab", "binary c"});
}

TEST(WebSocketParser, TextSplitInsideACharacter) {
    expect_events(frame(0x01, "\xE2") + frame(0x00, "\x82") + frame(0x80, "\xAC"), {"text €"});
}

TEST(WebSocketParser, Close) {
    expect_events(frame(0x88, ""), {"close 0 "});
    expect_events(close_frame(1000), {"close 1000 "});
    expect_events(close_frame(4999, "grüße €"), {"close 4999 grüße €"});
    for (const unsigned code : {1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000})
        EXPECT_EQ(feed_whole(close_frame(code)).code, 0U) << code;
    for (const unsigned code : {0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000, 65535})
        expect_violation(close_frame(code), 1002);
    expect_violation(frame(0x88, "\x03"), 1002);
    expect_violation(close_frame(1000, "\xFF"), 1007);
    expect_violation(close_frame(1000, "ok\xE2\x82"), 1007);
    EXPECT_EQ(feed_whole(close_frame(1000) + frame(0x81, "late")).events, (Events{"close 1000 "}));
}

TEST(WebSocketParser, FramingViolations) {
    expect_violation(frame(0x81, "x", false), 1002);  // not masked
    for (const unsigned reserved : {0xC1, 0xA1, 0x91}) expect_violation(frame(reserved, "x"), 1002);
    for (const unsigned opcode : {0x83, 0x84, 0x87, 0x8B, 0x8F})
        expect_violation(frame(opcode, "x"), 1002);
    expect_violation(frame(0x09, "x"), 1002);  // control frame in fragments
    expect_violation(frame(0x89, std::string(126, 'x')), 1002);
    expect_violation(frame(0x80, "x"), 1002);  // continues nothing
    expect_violation(frame(0x01, "a") + frame(0x81, "b"), 1002);
    expect_violation(std::string("\x81\xFE\x00\x05", 4) + "mask12345", 1002);  // length too long
    expect_violation(std::string("\x82\xFF\x80\0\0\0\0\0\0\x01", 10) + "mask1", 1002);
}

TEST(WebSocketParser, TooBig) {
    expect_violation(frame(0x81, std::string(kLimit + 1, 'x')), 1009);
    expect_violation(frame(0x82, std::string(70000, 'x')), 1009);
    expect_violation(frame(0x01, std::string(kLimit - 1, 'x')) + frame(0x80, "xx"), 1009);
    expect_violation(std::string("\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 10) + "mask1", 1009);
}

TEST(WebSocketParser, BadTextFailsAtTheFirstBadByte) {
    for (const char* bad : {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80",
                            "a\xE2x", "\xF5", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF"})
        expect_violation(frame(0x81, bad), 1007);
    expect_violation(frame(0x81, "a\xE2\x82"), 1007);  // ends inside a character
    // The rest of the frame has not come: six header bytes, then one good and one bad byte.
    const std::string partial = frame(0x81, "a\xFFmore").substr(0, 8);
    EXPECT_EQ(feed_whole(partial).code, 1007U);
    EXPECT_EQ(feed_whole(frame(0x01, "ok\xF4") + frame(0x00, "\x90")).code, 1007U);
}

TEST(WebSocketParser, IdleOnlyBetweenMessages) {
    WebSocketParser parser(kLimit);
    Recorder recorder;
    EXPECT_TRUE(parser.reusable());
    const std::string bytes = frame(0x01, "ab") + frame(0x89, "p") + frame(0x80, "c");
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        EXPECT_EQ(parser.feed(std::string_view(bytes).substr(i, 1), recorder).code, 0);
        EXPECT_EQ(parser.reusable(), i + 1 == bytes.size()) << i;
    }
    EXPECT_EQ(recorder.events, (Events{"ping p", "text abc"}));
}

TEST(WebSocketParser, ReceiverCanStop) {
    WebSocketParser parser(kLimit);
    Recorder recorder;
    recorder.stop_after = 1;
    EXPECT_EQ(parser.feed(frame(0x81, "a") + frame(0x81, "b"), recorder).code, 0);
    EXPECT_EQ(recorder.events, (Events{"text a"}));
    EXPECT_FALSE(parser.reusable());
}

TEST(WebSocketParser, PoolHandsOutCleanParsers) {
    ParserPool pool(kLimit);
    Recorder recorder;
    auto parser = pool.take();
    const WebSocketParser* first = parser.get();
    parser->feed(frame(0x81, "a"), recorder);
    pool.give_back(std::move(parser));
    parser = pool.take();
    EXPECT_EQ(parser.get(), first);
    parser->feed(frame(0x81, "\xFF"), recorder);
    pool.give_back(std::move(parser));
    parser = pool.take();
    parser->feed(frame(0x81, "b"), recorder);
    EXPECT_EQ(recorder.events, (Events{"text a", "text b"}));
}

std::string random_stream(test::Random& random) {
    std::string bytes;
    bool fragmented = false;
    for (auto count = random.number(1, 8); count > 0; --count) {
        const std::string payload = random.text(std::string_view("ab\xE2\x82\xAC\xFF", 6), 0, 6);
        const auto kind = random.number(0, 9);
        if (kind == 0) {
            bytes += frame(static_cast<unsigned>(random.number(0, 255)), payload);
        } else if (kind == 1) {
            bytes += frame(0x88, payload);
        } else if (kind <= 3) {
            bytes += frame(random.chance(0.5) ? 0x89 : 0x8A, payload);
        } else {
            const bool final = random.chance(0.6);
            const unsigned opcode = fragmented ? 0 : random.chance(0.5) ? 1 : 2;
            bytes += frame((final ? 0x80U : 0U) | opcode,
                           opcode == 1 || fragmented ? random.text("xyz", 0, 300) : payload);
            fragmented = !final;
        }
    }
    return bytes;
}

TEST(WebSocketParser, HoweverItIsSplitTheOutcomeIsTheSame) {
    test::Random random("websocket splits");
    for (int run = 0; run < 5000; ++run) {
        const std::string bytes = random_stream(random);
        std::vector<std::string_view> pieces;
        std::string_view rest = bytes;
        while (!rest.empty()) {
            const auto length = static_cast<std::size_t>(random.number(1, 40));
            pieces.push_back(rest.substr(0, length));
            rest.remove_prefix(std::min(length, rest.size()));
        }
        const Outcome whole = feed_whole(bytes);
        ASSERT_EQ(feed(pieces), whole) << run;
        ASSERT_EQ(feed_bytes(bytes), whole) << run;
    }
}

// The handshake of RFC 6455, section 1.3.
Request upgrade_request() {
    Request request;
    request.http_1_1 = true;
    request.headers = {{"host", "localhost"},
                       {"upgrade", "WebSocket"},
                       {"connection", "keep-alive, Upgrade"},
                       {"sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="},
                       {"sec-websocket-version", "13"}};
    return request;
}

std::string response_header(const Handshake& handshake, std::string_view name) {
    for (const auto& [key, value] : handshake.response.headers)
        if (key == name) return value;
    return {};
}

TEST(Handshake, Accepts) {
    const Handshake handshake = answer_handshake(upgrade_request(), "herald.v1");
    EXPECT_TRUE(handshake.accepted);
    EXPECT_EQ(handshake.response.status, 101);
    EXPECT_EQ(response_header(handshake, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    EXPECT_EQ(response_header(handshake, "Sec-WebSocket-Protocol"), "");
    EXPECT_EQ(encode_response(handshake.response, true, false).wire().substr(0, 34),
              "HTTP/1.1 101 Switching Protocols\r\n");
}

TEST(Handshake, ChoosesOurProtocolIfOffered) {
    Request request = upgrade_request();
    request.headers.emplace_back("sec-websocket-protocol", "other, herald.v1");
    EXPECT_EQ(response_header(answer_handshake(request, "herald.v1"), "Sec-WebSocket-Protocol"),
              "herald.v1");
    request.headers.back().second = "other";
    EXPECT_TRUE(answer_handshake(request, "herald.v1").accepted);
    EXPECT_EQ(response_header(answer_handshake(request, "herald.v1"), "Sec-WebSocket-Protocol"),
              "");
}

TEST(Handshake, Refusals) {
    const auto status_with = [](std::string_view name, const char* value) {
        Request request = upgrade_request();
        for (auto& [key, old] : request.headers)
            if (key == name) old = value;
        const Handshake handshake = answer_handshake(request, "herald.v1");
        EXPECT_EQ(handshake.accepted, handshake.response.status == 101);
        return handshake.response.status;
    };
    EXPECT_EQ(status_with("upgrade", "h2c"), 426);
    EXPECT_EQ(status_with("connection", "keep-alive"), 426);
    EXPECT_EQ(status_with("sec-websocket-version", "8"), 426);
    for (const char* key : {"", "short", "dGhlIHNhbXBsZSBub25jZQ=!", "dGhlIHNhbXBsZSBub25jZQ===",
                            "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZQAA"})
        EXPECT_EQ(status_with("sec-websocket-key", key), 400) << key;
    Request old_http = upgrade_request();
    old_http.http_1_1 = false;
    EXPECT_EQ(answer_handshake(old_http, "p").response.status, 400);
    Request version = upgrade_request();
    version.headers.back().second = "12";
    EXPECT_EQ(response_header(answer_handshake(version, "p"), "Sec-WebSocket-Version"), "13");
}

}  // namespace
}  // namespace herald
