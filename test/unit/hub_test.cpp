#include "hub.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/topic.h"
#include "random.h"

namespace herald {
namespace {

struct Ear final : Subscriber {
    void hear(Position pos, const Frame& frame) override {
        heard.push_back(pos);
        frames.push_back(frame.wire().data());
    }
    void miss(std::string_view topics, Position from, Position to, std::string_view why) override {
        missed.push_back(std::string(topics) + " " + std::to_string(from) + "-" +
                         std::to_string(to) + " " + std::string(why));
    }
    std::vector<Position> heard;
    std::vector<const char*> frames;
    std::vector<std::string> missed;
};

Row row(Position pos, std::string_view topic, std::string_view envelope = "{}") {
    return {.pos = pos, .topic = topic, .expires_us = 0, .envelope = envelope};
}

TEST(Hub, DeliversByTopicAndPattern) {
    Hub hub(1000);
    hub.start(10);
    Ear exact;
    Ear pattern;
    hub.subscribe(exact, "a:1", 10);
    hub.subscribe(pattern, "a:*", 10);
    hub.publish(row(11, "a:1"));
    hub.publish(row(12, "a:2"));
    hub.publish(row(13, "b"));
    EXPECT_EQ(exact.heard, (std::vector<Position>{11}));
    EXPECT_EQ(pattern.heard, (std::vector<Position>{11, 12}));
    EXPECT_EQ(exact.frames[0], pattern.frames[0]) << "one frame, shared";
    EXPECT_EQ(hub.position(), 13);
}

TEST(Hub, OverlappingSubscriptionsDeliverOnce) {
    Hub hub(0);
    hub.start(0);
    Ear ear;
    hub.subscribe(ear, "a", 0);
    hub.subscribe(ear, "*", 5);
    hub.subscribe(ear, "?", 0);
    for (Position pos = 1; pos <= 7; ++pos) hub.publish(row(pos, "a"));
    EXPECT_EQ(ear.heard, (std::vector<Position>{1, 2, 3, 4, 5, 6, 7}));
}

TEST(Hub, NothingAtOrBelowTheCursor) {
    Hub hub(0);
    hub.start(0);
    Ear ear;
    hub.subscribe(ear, "a", 3);
    for (Position pos = 1; pos <= 4; ++pos) hub.publish(row(pos, "a"));
    EXPECT_EQ(ear.heard, (std::vector<Position>{4}));
}

TEST(Hub, TellsEachSubscriptionOnceOfWhatIsGone) {
    Hub hub(0);
    hub.start(10);
    Ear exact;
    Ear pattern;
    Ear other;
    Ear later;
    hub.subscribe(exact, "a:1", 10);
    hub.subscribe(exact, "*", 12);
    hub.subscribe(pattern, "a:*", 5);
    hub.subscribe(other, "b", 10);
    hub.subscribe(later, "a:1", 20);
    const std::vector<Lost> some{{.to = 15, .topic = "a:1", .why = "retention"},
                                 {.to = 18, .topic = "a:2", .why = "dropped"}};
    hub.lose(some);
    EXPECT_EQ(exact.missed, (std::vector<std::string>{"a:1 10-15 retention", "* 12-18 dropped"}));
    EXPECT_EQ(pattern.missed, (std::vector<std::string>{"a:* 10-18 dropped"}));
    EXPECT_TRUE(other.missed.empty());
    EXPECT_TRUE(later.missed.empty());
    const std::vector<Lost> any{{.to = 30, .topic = "*", .why = "retention"}};
    hub.lose(any);
    EXPECT_EQ(other.missed, (std::vector<std::string>{"b 10-30 retention"}));
    EXPECT_EQ(later.missed, (std::vector<std::string>{"a:1 20-30 retention"}));
}

TEST(Hub, RingIsBoundedByBytes) {
    Hub hub(100);
    hub.start(5);
    EXPECT_EQ(hub.ring().floor(), 5);
    for (Position pos = 6; pos <= 30; ++pos) hub.publish(row(pos, "t", "0123456789"));
    EXPECT_LE(hub.ring().bytes(), 100U);
    EXPECT_EQ(hub.ring().floor(), 30 - static_cast<Position>(hub.ring().size()));
    EXPECT_EQ(hub.ring()[0].pos, hub.ring().floor() + 1);
    EXPECT_EQ(hub.ring().first_above(29), hub.ring().size() - 1);
    EXPECT_EQ(hub.ring().first_above(30), hub.ring().size());

    hub.publish(row(31, "t", std::string(200, 'x')));
    EXPECT_EQ(hub.ring().floor(), 31) << "a message that has no room is not in the ring";
    EXPECT_EQ(hub.ring().size(), 0U);
}

TEST(Hub, RingIsBoundedByCount) {
    Hub hub(1 << 30);
    hub.start(0);
    const auto count = static_cast<Position>(Ring::kMaxCount);
    for (Position pos = 1; pos <= count + 10; ++pos) hub.publish(row(pos, "t"));
    EXPECT_EQ(hub.ring().size(), Ring::kMaxCount);
    EXPECT_EQ(hub.ring().floor(), 10);
}

TEST(Hub, ForgetAndResetEmptyTheRing) {
    Hub hub(1000);
    hub.start(0);
    hub.publish(row(1, "t"));
    hub.advance(9);
    hub.forget();
    EXPECT_EQ(hub.ring().floor(), 9);
    hub.reset(4);
    EXPECT_EQ(hub.position(), 4);
    EXPECT_EQ(hub.ring().floor(), 4);
    hub.advance(3);
    EXPECT_EQ(hub.position(), 4) << "only reset goes back";
}

TEST(Hub, CacheStaysWithinItsBounds) {
    Hub hub(0);
    hub.start(0);
    Ear ear;
    hub.subscribe(ear, "*", 0);
    const auto topics = static_cast<Position>(Hub::kMaxCachedTopics) + 100;
    for (Position pos = 1; pos <= topics; ++pos) hub.publish(row(pos, std::to_string(pos)));
    EXPECT_EQ(ear.heard.size(), static_cast<std::size_t>(topics));
}

// Who should hear what, by looking at every subscription for every message.
struct Model {
    struct Sub {
        std::size_t ear;
        std::string topics;
        Position cursor;
    };
    std::vector<Sub> subs;

    std::set<std::size_t> hearers(Position pos, std::string_view topic) const {
        std::set<std::size_t> result;
        for (const Sub& sub : subs)
            if (sub.cursor < pos && topic_matches(sub.topics, topic)) result.insert(sub.ear);
        return result;
    }
};

TEST(Hub, RandomAgainstANaiveModel) {
    test::Random random("hub");
    for (int run = 0; run < 200; ++run) {
        Hub hub(static_cast<std::size_t>(random.number(0, 2000)));
        Model model;
        std::deque<Ear> ears(static_cast<std::size_t>(random.number(1, 12)));
        std::vector<std::vector<Position>> expected(ears.size());
        Position pos = random.number(0, 50);
        hub.start(pos);
        for (int step = 0; step < 200; ++step) {
            const auto ear =
                static_cast<std::size_t>(random.number(0, static_cast<int>(ears.size()) - 1));
            const std::string topics =
                random.chance(0.5) ? random.text("ab", 1, 2) : random.text("ab*?", 1, 3);
            const auto same =
                std::find_if(model.subs.begin(), model.subs.end(),
                             [&](const auto& s) { return s.ear == ear && s.topics == topics; });
            if (random.chance(0.2) && same == model.subs.end()) {
                const Position cursor = pos + random.number(-3, 3);
                hub.subscribe(ears[ear], topics, cursor);
                model.subs.push_back({ear, topics, cursor});
            } else if (random.chance(0.2)) {
                hub.unsubscribe(ears[ear], topics);
                if (same != model.subs.end()) model.subs.erase(same);
            } else {
                pos += random.number(1, 3);
                const std::string topic = random.text("ab", 1, 3);
                for (const std::size_t hearer : model.hearers(pos, topic))
                    expected[hearer].push_back(pos);
                hub.publish(row(pos, topic));
            }
            ASSERT_EQ(hub.stats().subscriptions, model.subs.size());
        }
        for (std::size_t i = 0; i < ears.size(); ++i) ASSERT_EQ(ears[i].heard, expected[i]);
    }
}

}  // namespace
}  // namespace herald
