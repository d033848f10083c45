#include "backoff.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>

namespace herald {
namespace {

TEST(Backoff, CeilingDoublesUpToTheCapAndStartsAgain) {
    Backoff backoff(100, 10'000, 1);
    for (const std::int64_t ceiling : {100, 200, 400, 800, 1600, 3200, 6400, 10'000, 10'000}) {
        EXPECT_EQ(backoff.ceiling(), ceiling);
        backoff.next();
    }
    backoff.reset();
    EXPECT_EQ(backoff.ceiling(), 100);
}

TEST(Backoff, WaitsAreSpreadOverTheWholeRange) {
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        Backoff backoff(100, 10'000, seed);
        std::set<std::int64_t> waits;
        for (int attempt = 0; attempt < 50; ++attempt) {
            const std::int64_t ceiling = backoff.ceiling();
            const std::int64_t wait = backoff.next();
            ASSERT_GE(wait, 0) << "seed " << seed;
            ASSERT_LE(wait, ceiling) << "seed " << seed;
            waits.insert(wait);
        }
        EXPECT_LT(*waits.begin(), 2000) << "seed " << seed;
        EXPECT_GT(*waits.rbegin(), 5000) << "seed " << seed;
    }
}

}  // namespace
}  // namespace herald
