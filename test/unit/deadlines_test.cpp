#include "deadlines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "random.h"

namespace herald {
namespace {

struct Item final : TimedItem {
    void on_due(std::uint64_t now) override { fired_at = now; }
    std::optional<std::uint64_t> fired_at;
};

TEST(Deadlines, FireInOrderAndOnce) {
    Deadlines deadlines;
    Item early;
    Item late;
    deadlines.schedule(late, 20);
    deadlines.schedule(early, 10);
    EXPECT_EQ(deadlines.next_due(), 10U);
    deadlines.run(10);
    EXPECT_EQ(early.fired_at, 10U);
    EXPECT_FALSE(late.fired_at);
    deadlines.schedule(late, 30);
    deadlines.run(25);
    EXPECT_FALSE(late.fired_at);
    deadlines.cancel(late);
    deadlines.cancel(late);
    EXPECT_TRUE(deadlines.empty());
}

TEST(Deadlines, RandomAgainstAMap) {
    test::Random random("deadlines");
    for (int run = 0; run < 100; ++run) {
        Deadlines deadlines;
        std::deque<Item> items(50);
        std::map<Item*, std::uint64_t> model;
        std::uint64_t now = 0;
        for (int step = 0; step < 300; ++step) {
            Item& item = items[static_cast<std::size_t>(random.number(0, 49))];
            if (random.chance(0.6)) {
                const std::uint64_t due = now + static_cast<std::uint64_t>(random.number(1, 100));
                deadlines.schedule(item, due);
                model[&item] = due;
            } else if (random.chance(0.5)) {
                deadlines.cancel(item);
                model.erase(&item);
            } else {
                now += static_cast<std::uint64_t>(random.number(1, 20));
                for (Item& each : items) each.fired_at.reset();
                deadlines.run(now);
                for (Item& each : items) {
                    const auto found = model.find(&each);
                    const bool expected = found != model.end() && found->second <= now;
                    ASSERT_EQ(each.fired_at.has_value(), expected);
                    if (expected) model.erase(found);
                }
            }
            ASSERT_EQ(deadlines.empty(), model.empty());
            std::uint64_t next = UINT64_MAX;
            for (const auto& [scheduled, due] : model) next = std::min(next, due);
            if (!model.empty()) {
                ASSERT_EQ(deadlines.next_due(), next);
            }
        }
        for (Item& item : items) deadlines.cancel(item);
    }
}

}  // namespace
}  // namespace herald
