// What a WebSocket client says and hears, over real sockets, with a log in memory.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "stage.h"

namespace herald::test {
namespace {

using nlohmann::json;
using Positions = std::vector<Position>;

json sub(const std::string& topic) {
    return {{"op", "sub"}, {"topic", topic}};
}

TEST(Session, HearsWhatItSubscribesTo) {
    Stage stage;
    stage.start_feed();
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub("a:*")), json({{"op", "ok"}, {"topic", "a:*"}, {"pos", 0}}));
    stage.publish("a:1");
    stage.publish("b");
    stage.publish("a:2");
    EXPECT_EQ(client.next(), json::parse(stage.bus.log[0].envelope));
    EXPECT_EQ(positions(client.drain()), (Positions{3}));
    EXPECT_TRUE(stage.bus.asked.empty()) << "the database is not asked";

    EXPECT_EQ(client.ask({{"op", "unsub"}, {"topic", "a:*"}}),
              json({{"op", "ok"}, {"topic", "a:*"}}));
    stage.publish("a:1");
    EXPECT_TRUE(client.drain().empty());
}

TEST(Session, FaultyFramesLeaveTheConnectionAlive) {
    Stage stage;
    stage.start_feed();
    WebSocketClient client(stage);
    client.send("{nonsense");
    EXPECT_EQ(client.next()["code"], "invalid");
    EXPECT_EQ(client.ask({{"op", "fly"}})["code"], "unknown_op");
    EXPECT_EQ(client.ask({{"op", "sub"}})["field"], "topic");
    EXPECT_EQ(client.ask({{"op", "unsub"}, {"topic", "a"}})["field"], "topic");
    EXPECT_EQ(client.ask(sub("a"))["op"], "ok");
    EXPECT_EQ(client.ask(sub("a"))["field"], "topic") << "subscribed already";
    stage.publish("a");
    EXPECT_EQ(positions(client.drain()), (Positions{1}));
}

TEST(Session, SubscriptionLimit) {
    Stage stage;
    stage.start_feed();
    WebSocketClient client(stage);
    for (int i = 0; i < 1000; ++i)
        client.send(R"({"op":"sub","topic":"t*)" + std::to_string(i) + "\"}");
    EXPECT_EQ(client.ask(sub("one:more"))["code"], "limit");
    EXPECT_EQ(client.drain().size(), 1000U);
    client.ask({{"op", "unsub"}, {"topic", "t*7"}});
    EXPECT_EQ(client.ask(sub("one:more"))["op"], "ok");
}

TEST(Session, NotBeforeTheFeedHasStarted) {
    Stage stage;
    WebSocketClient client(stage);
    const json answer = client.ask(sub("a"));
    EXPECT_EQ(answer["code"], "unavailable");
    EXPECT_GT(answer["retry_ms"], 0);
    stage.start_feed();
    EXPECT_EQ(client.ask(sub("a"))["op"], "ok");
}

TEST(Session, SendsAreStoredInOrder) {
    Stage stage;
    stage.start_feed();
    stage.bus.held = true;
    WebSocketClient client(stage, "?user=u&agent=backend%3A1");
    for (int i = 0; i < 5; ++i)
        client.send(R"({"op":"send","id":)" + std::to_string(i) + R"(,"content":")" +
                    std::to_string(i) + "\"}");
    client.drain();
    EXPECT_EQ(stage.bus.sent.size(), 1U) << "one at a time";
    stage.bus.held = false;
    for (int i = 0; i < 5; ++i)
        EXPECT_EQ(client.next(),
                  json({{"op", "ok"}, {"id", i}, {"message", "id-" + std::to_string(i + 1)}}));
    ASSERT_EQ(stage.bus.sent.size(), 5U);
    for (int i = 0; i < 5; ++i)
        EXPECT_EQ(stage.bus.sent[static_cast<std::size_t>(i)],
                  R"({"content":")" + std::to_string(i) + R"(","sender":"backend:1"})");
}

TEST(Session, RefusedSendSaysWhy) {
    Stage stage;
    stage.start_feed();
    stage.bus.failure =
        Error{.code = "rejected", .message = "no", .hint = "try", .sqlstate = "22023", .field = {}};
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask({{"op", "send"}, {"content", "x"}}), json({{"op", "err"},
                                                                    {"code", "rejected"},
                                                                    {"message", "no"},
                                                                    {"sqlstate", "22023"},
                                                                    {"hint", "try"}}));
    stage.bus.failure.reset();
    EXPECT_EQ(client.ask({{"op", "send"}, {"content", "x"}})["op"], "ok");
}

TEST(Session, ReadingStopsWhileTooManySendsWait) {
    Stage stage;
    stage.start_feed();
    stage.bus.held = true;
    WebSocketClient client(stage);
    std::string frame("\x81\xFE\x27\x10\0\0\0\0", 8);  // 10,000 bytes, masked with zeros
    frame += R"({"op":"send","content":")";
    frame += std::string(10'008 - frame.size() - 2, 'x') + "\"}";
    std::size_t written = 0;  // bytes
    int stalled = 0;          // turns in which the kernel took nothing
    while (stalled < 200) {
        const std::size_t taken = client.try_send(std::string_view(frame).substr(written % 10'008));
        written += taken;
        stalled = taken == 0 ? stalled + 1 : 0;
        stage.turn();
    }
    Connection* connection = stage.server().listener().find(1);
    ASSERT_NE(connection, nullptr);
    EXPECT_LE(connection->messages_received(), 64U) << "of " << written / 10'008;
    EXPECT_EQ(stage.bus.sent.size(), 1U);

    stage.bus.held = false;
    client.send_bytes(std::string_view(frame).substr(written % 10'008));
    for (std::size_t i = 0; i <= written / 10'008; ++i) ASSERT_EQ(client.next()["op"], "ok");
    EXPECT_EQ(client.ask({{"op", "send"}, {"content", "last"}})["op"], "ok");
}

TEST(Session, BinaryIsNotUnderstood) {
    Stage stage;
    WebSocketClient client(stage);
    client.send_frame(0x82, "x");
    EXPECT_EQ(client.until_closed(), 1003U);
}

TEST(Session, ViolationsGetTheirCloseCode) {
    Stage stage([](Config& config) { config.max_frame = 2000; });
    const auto code_for = [&](unsigned first_byte, std::string_view payload) {
        WebSocketClient client(stage);
        client.send_frame(first_byte, payload);
        const unsigned code = client.until_closed();
        EXPECT_TRUE(client.until_eof());
        return code;
    };
    EXPECT_EQ(code_for(0x81, "\xFF"), 1007U);
    EXPECT_EQ(code_for(0xC1, "x"), 1002U);
    EXPECT_EQ(code_for(0x83, "x"), 1002U);
    EXPECT_EQ(code_for(0x81, std::string(2001, ' ')), 1009U);
    EXPECT_EQ(code_for(0x88, std::string("\x0F\xA0")), 4000U) << "the client's own code comes back";
}

TEST(Session, PingIsAnswered) {
    Stage stage;
    WebSocketClient client(stage);
    client.send_frame(0x89, "are you there");
    EXPECT_TRUE(client.until([&] {
        return client.bytes ==
               "\x8A\x0D"
               "are you there";
    }));
}

TEST(Session, SilentClientIsDropped) {
    Stage stage([](Config& config) {
        config.ping_interval = 0.05;
        config.idle_timeout = 0.5;
    });
    WebSocketClient client(stage);
    EXPECT_EQ(client.until_closed(), 4000U);
    EXPECT_GE(client.pings, 2);
    const json bye = client.next();
    EXPECT_EQ(bye["op"], "bye");
    EXPECT_EQ(bye["code"], 4000);
    EXPECT_EQ(bye["reconnect"], true);
}

// Longer than the time-out; which is itself longer than a busy machine stands still.
TEST(Session, AnsweringPingsKeepsAlive) {
    Stage stage([](Config& config) {
        config.ping_interval = 0.1;
        config.idle_timeout = 1;
    });
    WebSocketClient client(stage);
    int answered = 0;
    EXPECT_TRUE(stage.until([&] {
        client.parse();
        for (; answered < client.pings; ++answered) client.send_frame(0x8A, "");
        return answered >= 15 || client.eof;
    }));
    EXPECT_EQ(client.close_code, 0U);
}

TEST(Session, SlowClientIsCutOffAndTheOthersAreNot) {
    Stage stage([](Config& config) { config.max_buffer = 64 * 1024; });
    stage.start_feed();
    WebSocketClient slow(stage);
    WebSocketClient other(stage);
    slow.ask(sub("a"));
    other.ask(sub("b"));
    // The kernel takes some megabytes before the notifier sees that nobody reads.
    bool gone = false;
    for (int i = 0; i < 2000 && !gone; ++i) {
        for (int j = 0; j < 10; ++j) stage.store("a", 0, 10'000);
        stage.feed();
        stage.turn();
        gone = stage.server().listener().stats().closed_slow == 1;
    }
    ASSERT_TRUE(gone);
    stage.publish("b");
    EXPECT_EQ(positions(other.drain()).size(), 1U);

    EXPECT_EQ(slow.until_closed(), 4009U);
    ASSERT_GE(slow.frames.size(), 2U);
    const json bye = slow.frames.back();
    EXPECT_EQ(bye["code"], 4009);
    EXPECT_EQ(bye["reconnect"], true);
    slow.frames.pop_back();
    Position last = 0;
    for (const json& frame : slow.frames) EXPECT_EQ(frame["pos"], ++last) << "whole and in order";
}

TEST(Session, BurstInOneTurnIsNoReasonToCutOff) {
    Stage stage([](Config& config) { config.max_buffer = 64 * 1024; });
    stage.start_feed();
    WebSocketClient client(stage);
    client.ask(sub("a"));
    for (int i = 0; i < 100; ++i) stage.store("a", 0, 10'000);
    stage.feed();
    EXPECT_EQ(positions(client.drain()).size(), 100U);
}

}  // namespace
}  // namespace herald::test
