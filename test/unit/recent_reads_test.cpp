// Which reads of payloads go on where others have ended, against a model that forgets nothing.

#include "core/recent_reads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "random.h"

namespace herald {
namespace {

UuidBytes payload(int number) {
    return make_uuid_v7(number, static_cast<std::uint64_t>(number));
}

TEST(RecentReads, AreFoundWhereTheyEnded) {
    RecentReads reads{};
    EXPECT_EQ(reads.find({}, 0, 0, 1), -1) << "no read is there";
    reads.add({payload(1), 7, 100, 50, 1});
    EXPECT_EQ(reads.find(payload(1), 7, 49, 2), -1);
    EXPECT_EQ(reads.find(payload(1), 8, 50, 2), -1);
    EXPECT_EQ(reads.find(payload(2), 7, 50, 2), -1);
    const int number = reads.find(payload(1), 7, 50, 2);
    ASSERT_GE(number, 0);
    const RecentReads::Read seen = reads[number];
    EXPECT_EQ(seen.transaction, 100U);
    EXPECT_TRUE(reads.go_on(number, seen, 80));
    EXPECT_FALSE(reads.go_on(number, seen, 80)) << "somebody has gone on with it";
    EXPECT_EQ(reads.find(payload(1), 7, 50, 2), -1);
    EXPECT_EQ(reads.find(payload(1), 7, 80, 2), number);
    EXPECT_EQ(reads.find(payload(1), 7, 80, 1 + RecentReads::kKept), -1) << "too long ago";
}

TEST(RecentReads, OfTheSameEachIsFound) {
    RecentReads reads{};
    for (std::uint32_t transaction : {1U, 2U}) reads.add({payload(1), 7, transaction, 50, 1});
    const int first = reads.find(payload(1), 7, 50, 2);
    const int second = reads.find(payload(1), 7, 50, 2, first);
    ASSERT_GE(second, 0);
    EXPECT_NE(reads[first].transaction, reads[second].transaction);
    EXPECT_EQ(reads.find(payload(1), 7, 50, 2, second), -1);
}

TEST(RecentReads, TheLatestAreKept) {
    test::Random random("recent reads");
    RecentReads reads{};
    std::vector<RecentReads::Read> model;  // all
    for (std::int64_t now = 1; now < 3000; ++now) {
        const int which = static_cast<int>(random.number(0, 299));
        const auto found = [&](std::int64_t from) {
            return reads.find(payload(which), 7, from, now);
        };
        const auto known = std::find_if(model.rbegin(), model.rend(), [&](const auto& read) {
            return read.payload == payload(which);
        });
        if (known != model.rend()) {
            const auto later = known - model.rbegin();
            const int number = found(known->end);
            EXPECT_EQ(number >= 0, later < RecentReads::kMost);
            if (number >= 0) {
                EXPECT_TRUE(reads.go_on(number, *known, known->end + 10));
                known->end += 10;
                continue;
            }
        }
        model.push_back({payload(which), 7, static_cast<std::uint32_t>(now), 50, now});
        reads.add(model.back());
    }
}

}  // namespace
}  // namespace herald
