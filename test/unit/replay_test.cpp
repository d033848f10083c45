// From the past to the present without loss or repetition: `after`, `last`, the ring, the database,
// and the hand-over between them.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "clock.h"
#include "core/topic.h"
#include "random.h"
#include "stage.h"

namespace herald::test {
namespace {

using nlohmann::json;
using Positions = std::vector<Position>;

json sub_after(const std::string& topic, Position after) {
    return {{"op", "sub"}, {"topic", topic}, {"after", after}};
}

json sub_last(const std::string& topic, int last) {
    return {{"op", "sub"}, {"topic", topic}, {"last", last}};
}

json ok(const std::string& topic, Position pos) {
    return {{"op", "ok"}, {"topic", topic}, {"pos", pos}};
}

Positions range(Position from, Position to) {
    Positions result(static_cast<std::size_t>(to - from + 1));
    std::iota(result.begin(), result.end(), from);
    return result;
}

TEST(Replay, FromTheRingWithoutTheDatabase) {
    Stage stage;
    stage.start_feed();
    for (int i = 0; i < 5; ++i) stage.publish("a");
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_after("a", 2)), ok("a", 5));
    stage.publish("a");
    EXPECT_EQ(positions(client.drain()), range(3, 6));
    EXPECT_TRUE(stage.bus.asked.empty());
}

TEST(Replay, RingPassesOverWhatHasExpired) {
    Stage stage;
    stage.start_feed();
    stage.store("a", unix_microseconds() - 1);
    stage.store("a", unix_microseconds() + 3'600'000'000);
    stage.store("a");
    stage.feed();
    WebSocketClient client(stage);
    client.ask(sub_after("a", 0));
    EXPECT_EQ(positions(client.drain()), (Positions{2, 3}));
}

TEST(Replay, FromTheDatabaseThenTheRing) {
    Stage stage([](Config& config) { config.ring_bytes = 500; });
    for (int i = 0; i < 1200; ++i) stage.store("a");
    stage.start_feed();
    for (int i = 0; i < 100; ++i) stage.publish("a");
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_after("a", 0)), ok("a", 1300));
    EXPECT_EQ(positions(client.drain()), range(1, 1300));
    EXPECT_EQ(stage.bus.asked.size(), 3U) << "pages of 500";
}

TEST(Replay, MessagesThatComeMeanwhileFollowOnce) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    for (int i = 0; i < 10; ++i) stage.store("a");
    stage.start_feed();
    stage.bus.held = true;
    WebSocketClient client(stage);
    client.send(sub_after("a", 4).dump());
    client.drain();
    stage.publish("a");  // 11: in the log before the page is read
    stage.store("a");    // 12: in the log, unknown to the feed
    stage.bus.answer_one();
    EXPECT_EQ(positions(client.drain()), range(5, 11)) << "12 is left to the feed";
    stage.feed();
    EXPECT_EQ(positions(client.drain()), (Positions{12}));
}

TEST(Replay, LastCountsBackwards) {
    Stage stage;
    for (int i = 0; i < 20; ++i) stage.store(i % 2 == 0 ? "a" : "b");
    stage.start_feed();
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_last("a", 3)), ok("a", 20));
    EXPECT_EQ(client.ask(sub_last("none", 3)), ok("none", 20));
    stage.publish("a");
    stage.publish("none");
    EXPECT_EQ(positions(client.drain()), (Positions{15, 17, 19, 21, 22}));
}

TEST(Replay, AfterAboveTheFeedAsksWhetherTheLogWentBack) {
    Stage stage;
    for (int i = 0; i < 5; ++i) stage.store("a");
    stage.start_feed();
    for (int i = 0; i < 4; ++i) stage.store("a");  // another notifier has delivered 6 and 7
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_after("a", 7)), ok("a", 7));
    stage.feed();
    EXPECT_EQ(positions(client.drain()), (Positions{8, 9}));

    EXPECT_EQ(client.ask(sub_after("*", 100)), ok("*", 9));
    EXPECT_EQ(client.next(),
              json({{"op", "gap"}, {"topic", "*"}, {"from", 100}, {"to", 9}, {"why", "reset"}}));
    stage.publish("b");
    EXPECT_EQ(positions(client.drain()), (Positions{10}));
}

TEST(Replay, GapIsToldOnceAndFirst) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    stage.bus.horizon = 100;
    for (int i = 0; i < 700; ++i) stage.store("a");
    stage.start_feed();
    stage.bus.gap = Gap{100, "retention"};
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_after("a", 10)), ok("a", 800));
    EXPECT_EQ(
        client.next(),
        json({{"op", "gap"}, {"topic", "a"}, {"from", 10}, {"to", 100}, {"why", "retention"}}));
    EXPECT_EQ(positions(client.drain()), range(101, 800));
}

TEST(Replay, ErrorEndsTheSubscription) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    for (int i = 0; i < 5; ++i) stage.store("a");
    stage.start_feed();
    stage.bus.failure = Error{.code = "unavailable",
                              .message = "away",
                              .hint = {},
                              .sqlstate = {},
                              .field = {},
                              .retry_ms = 500};
    WebSocketClient client(stage);
    EXPECT_EQ(client.ask(sub_after("a", 0))["retry_ms"], 500);
    stage.bus.failure.reset();
    EXPECT_EQ(client.ask(sub_after("a", 0)), ok("a", 5)) << "it may be asked for again";
    EXPECT_EQ(positions(client.drain()), range(1, 5));
}

TEST(Replay, OverlappingSubscriptionsBringAMessageOnce) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    for (int i = 0; i < 10; ++i) stage.store("a");
    stage.start_feed();
    WebSocketClient client(stage);
    client.ask(sub_after("a", 6));
    stage.publish("a");
    client.ask(sub_after("*", 3));
    client.ask(sub_after("?", 0));
    stage.publish("a");
    EXPECT_EQ(positions(client.drain()), (Positions{7, 8, 9, 10, 11, 4, 5, 6, 1, 2, 3, 12}));
}

TEST(Replay, UnsubscribedWhileThePageIsOnItsWay) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    for (int i = 0; i < 10; ++i) stage.store("a");
    stage.start_feed();
    stage.bus.held = true;
    WebSocketClient client(stage);
    client.send(R"({"op":"sub","topic":"a","after":0,"id":1})");
    client.send(R"({"op":"sub","topic":"*","after":8,"id":2})");
    EXPECT_EQ(client.ask({{"op", "unsub"}, {"topic", "a"}}), json({{"op", "ok"}, {"topic", "a"}}));
    EXPECT_EQ(client.next()["id"], 1) << "the sub request gets its answer too";
    stage.bus.held = false;
    EXPECT_EQ(positions({client.next(), client.next()}), (Positions{9, 10}));
    EXPECT_EQ(client.next(), json({{"op", "ok"}, {"id", 2}, {"topic", "*"}, {"pos", 10}}));
}

TEST(Replay, ClientLeavesWhileThePageIsOnItsWay) {
    Stage stage([](Config& config) { config.ring_bytes = 0; });
    for (int i = 0; i < 10; ++i) stage.store("a");
    stage.start_feed();
    stage.bus.held = true;
    {
        WebSocketClient client(stage);
        client.send(sub_after("a", 0).dump());
        client.send(R"({"op":"send","content":"x"})");
        client.drain();
    }
    ASSERT_TRUE(stage.until([&] { return stage.server().listener().size() == 0; }));
    EXPECT_EQ(stage.bus.waiting.size(), 2U);
    stage.bus.held = false;
    stage.turn();
}

TEST(Replay, LongReplayWaitsForASlowReaderInsteadOfCuttingItOff) {
    Stage stage([](Config& config) {
        config.max_buffer = 64 * 1024;
        config.ring_bytes = 1024 * 1024;
    });
    constexpr int kMessages = 2000;  // 20 MB: more than the kernel holds
    for (int i = 0; i < kMessages; ++i) stage.store("a", 0, 10'000);
    stage.start_feed();
    for (int i = 0; i < 90; ++i) stage.store("a", 0, 10'000);  // these are in the ring
    stage.feed();
    WebSocketClient client(stage);
    client.send(sub_after("a", 0).dump());
    for (int i = 0; i < 200; ++i) stage.turn();  // nobody reads meanwhile
    const Connection* connection = stage.server().listener().find(1);
    ASSERT_NE(connection, nullptr);
    EXPECT_LE(connection->buffered(), 64U * 1024);
    ASSERT_TRUE(stage.until([&] {
        client.parse();
        return client.eof || client.frames.size() == kMessages + 90 + 1;
    }));
    EXPECT_EQ(client.frames.back()["op"], "ok");
    EXPECT_EQ(positions({client.frames.begin(), client.frames.end()}), range(1, kMessages + 90));
}

TEST(Replay, ForgottenRingIsReadFromTheDatabase) {
    Stage stage;
    stage.start_feed();
    for (int i = 0; i < 5; ++i) stage.publish("a");
    stage.server().feed_forget();
    WebSocketClient client(stage);
    client.ask(sub_after("a", 0));
    EXPECT_EQ(stage.bus.asked.size(), 1U);
    EXPECT_EQ(positions(client.drain()), range(1, 5));
}

// Random subscriptions of one connection while messages arrive, pages come late, the feed lags and
// the ring is too small: at the end each message that any of its subscriptions asked for has come
// exactly once, and what an ok frame claims had come before it.
class HandOver {
  public:
    explicit HandOver(Random& random)
        : random_(random), stage_([&](Config& config) {
              const std::size_t rings[] = {0, 300, 3000, 1 << 20};
              config.ring_bytes = rings[random.number(0, 3)];
              config.max_buffer = 16 * 1024 * 1024;
          }) {}

    void run() {
        for (auto i = random_.number(0, 60); i > 0; --i) stage_.store(topic());
        stage_.start_feed();
        stage_.bus.held = true;
        WebSocketClient client(stage_);
        for (int step = 0; step < 150; ++step) do_something(client);
        stage_.feed();
        ASSERT_TRUE(stage_.until([&] {
            while (!stage_.bus.waiting.empty()) stage_.bus.answer_one();
            client.parse();
            return answered(client) == topics_.size();
        }));
        stage_.bus.held = false;
        for (auto& frame : client.drain()) client.frames.push_back(std::move(frame));
        check({client.frames.begin(), client.frames.end()});
    }

  private:
    std::string topic() { return random_.text("ab", 1, 2); }

    void do_something(WebSocketClient& client) {
        const auto what = random_.number(0, 9);
        if (what == 0) {
            subscribe(client);
        } else if (what <= 4) {
            stage_.store(topic());
        } else if (what <= 6) {
            stage_.feed(static_cast<std::size_t>(random_.number(0, 5)));
        } else if (what == 7 && !stage_.bus.waiting.empty()) {
            stage_.bus.answer_one();
        } else if (what == 8 && random_.chance(0.1)) {
            stage_.server().feed_forget();
        } else {
            stage_.turn();
        }
    }

    void subscribe(WebSocketClient& client) {
        const char* all[] = {"a", "b", "ab", "?", "*", "a*", "*b", "b?"};
        const std::string topics = all[random_.number(0, 7)];
        if (std::find(topics_.begin(), topics_.end(), topics) != topics_.end()) return;
        topics_.push_back(topics);
        json request = {{"op", "sub"}, {"topic", topics}, {"id", topics}};
        if (random_.chance(0.7)) {
            const Position after = random_.number(0, stage_.bus.horizon);
            request["after"] = after;
            after_[topics] = after;
        }
        client.send(request.dump());
    }

    std::size_t answered(const WebSocketClient& client) const {
        return static_cast<std::size_t>(
            std::count_if(client.frames.begin(), client.frames.end(),
                          [](const json& frame) { return frame.contains("op"); }));
    }

    void check(const std::vector<json>& frames) {
        std::map<Position, int> times;
        for (const json& frame : frames) {
            if (!frame.contains("op")) {
                ++times[frame["pos"].get<Position>()];
                continue;
            }
            ASSERT_EQ(frame["op"], "ok") << frame;
            const std::string topics = frame["id"];
            const auto pos = frame["pos"].get<Position>();
            if (!after_.contains(topics)) after_[topics] = pos;
            for (const Stored& stored : stage_.bus.log) {
                if (stored.pos <= after_[topics] || stored.pos > pos) continue;
                if (!topic_matches(topics, stored.topic)) continue;
                ASSERT_EQ(times[stored.pos], 1) << "before " << frame;
            }
        }
        for (const Stored& stored : stage_.bus.log) {
            const bool wanted =
                std::any_of(topics_.begin(), topics_.end(), [&](const auto& topics) {
                    return stored.pos > after_[topics] && topic_matches(topics, stored.topic);
                });
            ASSERT_EQ(times[stored.pos], wanted ? 1 : 0) << stored.pos << " " << stored.topic;
        }
    }

    Random& random_;
    Stage stage_;
    std::vector<std::string> topics_;
    std::map<std::string, Position> after_;
};

TEST(Replay, HandOverIsExactHoweverThingsInterleave) {
    Random random("hand-over");
    for (int run = 0; run < 200 && !HasFatalFailure(); ++run) {
        SCOPED_TRACE(run);
        HandOver(random).run();
    }
}

}  // namespace
}  // namespace herald::test
