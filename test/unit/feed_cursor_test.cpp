#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "feed.h"

namespace herald {
namespace {

using Ring = FeedCursor::Ring;
using Next = FeedCursor::Next;

FeedCursor started_at(Position pos) {
    FeedCursor cursor;
    cursor.start(pos);
    return cursor;
}

TEST(FeedCursor, DoorbellAtOrBelowThePositionIsNothingNew) {
    FeedCursor cursor = started_at(10);
    EXPECT_EQ(cursor.ring("9"), Ring::kNothing);
    EXPECT_EQ(cursor.ring("10"), Ring::kNothing);
    EXPECT_EQ(cursor.ring("11"), Ring::kRead);
}

TEST(FeedCursor, WhatEverybodyMayNotifyIsIgnored) {
    FeedCursor cursor = started_at(10);
    for (const char* payload : {"", "x", "11x", " 11", "+11", "99999999999999999999", "-1"}) {
        EXPECT_EQ(cursor.ring(payload), Ring::kNothing) << payload;
    }
    EXPECT_EQ(cursor.page(0, 10), Next::kWait);
}

TEST(FeedCursor, ResetMeansForget) {
    FeedCursor cursor = started_at(10);
    EXPECT_EQ(cursor.ring("reset"), Ring::kForget);
}

TEST(FeedCursor, DoorbellBeforeTheFirstPositionIsRemembered) {
    FeedCursor cursor;
    EXPECT_EQ(cursor.ring("12"), Ring::kNothing);
    cursor.start(10);
    EXPECT_EQ(cursor.page(1, 11), Next::kRead);
    EXPECT_EQ(cursor.page(1, 12), Next::kWait);
}

TEST(FeedCursor, DoorbellDuringAReadLeadsToTheNextRead) {
    FeedCursor cursor = started_at(10);
    EXPECT_EQ(cursor.ring("11"), Ring::kRead);
    EXPECT_EQ(cursor.ring("15"), Ring::kRead);
    EXPECT_EQ(cursor.page(1, 11), Next::kRead);
    EXPECT_EQ(cursor.page(4, 15), Next::kWait);
}

TEST(FeedCursor, CutPagesAreReadOnUntilTheDoorbellIsReached) {
    FeedCursor cursor = started_at(0);
    cursor.ring("2500");
    EXPECT_EQ(cursor.page(1000, 1000), Next::kRead);
    EXPECT_EQ(cursor.page(1000, 2000), Next::kRead);
    EXPECT_EQ(cursor.page(500, 2500), Next::kWait);
}

TEST(FeedCursor, CatchingUpEndsWithAPageWithoutMessages) {
    FeedCursor cursor = started_at(5);
    cursor.catch_up();
    EXPECT_EQ(cursor.page(3, 8), Next::kRead);
    EXPECT_TRUE(cursor.catching_up());
    EXPECT_EQ(cursor.page(0, 9), Next::kWait);
    EXPECT_FALSE(cursor.catching_up());
}

TEST(FeedCursor, HorizonBehindTheDoorbellIsLookedAtSoonAgain) {
    FeedCursor cursor = started_at(5);
    cursor.ring("9");
    EXPECT_EQ(cursor.page(2, 7), Next::kRead);
    EXPECT_EQ(cursor.page(0, 7), Next::kSoon);
    EXPECT_EQ(cursor.page(0, 7), Next::kSoon);
    EXPECT_EQ(cursor.page(2, 9), Next::kWait);
}

TEST(FeedCursor, LogThatWentBackResetsAndIsReadFromThere) {
    FeedCursor cursor = started_at(100);
    cursor.ring("200");
    EXPECT_EQ(cursor.page(0, 40), Next::kReset);
    EXPECT_EQ(cursor.position(), 40);
    EXPECT_TRUE(cursor.catching_up());
    EXPECT_EQ(cursor.page(0, 40), Next::kWait);
}

// Property: whatever the order of commits, doorbells, pages and reconnects, once the log is quiet
// the cursor comes to rest at its end, and what it read on the way is the log, each message once.
TEST(FeedCursor, PropertyReadsTheWholeLogOnceAndComesToRest) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        std::mt19937_64 random(seed);
        const auto chance = [&](int percent) { return static_cast<int>(random() % 100) < percent; };
        std::vector<Position> log;
        std::vector<std::string> bells;  // on their way
        Position last = 0;
        std::vector<Position> got;
        FeedCursor cursor = started_at(0);
        bool reading = false;
        const auto deliver = [&] {
            for (const std::string& bell : std::exchange(bells, {})) {
                if (cursor.ring(bell) == Ring::kRead) reading = true;
            }
        };
        const auto page = [&] {
            const std::size_t limit = 1 + random() % 5;
            std::size_t rows = 0;
            auto at = std::upper_bound(log.begin(), log.end(), cursor.position());
            Position upto = std::max(last, cursor.position());
            for (; at != log.end(); ++at) {
                got.push_back(*at);
                if (++rows == limit) {
                    upto = *at;
                    break;
                }
            }
            const Next next = cursor.page(rows, upto);
            ASSERT_NE(next, Next::kReset);
            reading = next != Next::kWait;
        };
        for (int step = 0; step < 200; ++step) {
            if (chance(40)) {
                const int messages = 1 + static_cast<int>(random() % 4);
                for (int i = 0; i < messages; ++i) {
                    last += 1 + static_cast<Position>(random() % 3);
                    log.push_back(last);
                }
                bells.push_back(std::to_string(last));
            }
            if (chance(50)) deliver();
            if (chance(5)) {  // the connection breaks: what was on its way is lost
                bells.clear();
                cursor.catch_up();
                reading = true;
            }
            if (reading) page();
        }
        deliver();
        for (int rest = 0; reading; ++rest) {
            ASSERT_LT(rest, 1000) << "does not come to rest, seed " << seed;
            page();
        }
        ASSERT_EQ(got, log) << "seed " << seed;
        ASSERT_EQ(cursor.position(), last) << "seed " << seed;
    }
}

}  // namespace
}  // namespace herald
