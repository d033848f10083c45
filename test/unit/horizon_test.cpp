// The parts of the order of messages: numbers, regions, blocks, holds and what the horizon makes of
// them. How they stand together against each other's users: horizon_threads.cpp, horizon_steps.cpp.

#include "core/horizon.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <set>
#include <vector>

namespace herald {

bool operator==(const Range& a, const Range& b) {
    return a.first == b.first && a.end == b.end;
}
std::ostream& operator<<(std::ostream& out, const Range& range) {
    return out << "[" << range.first << ", " << range.end << ")";
}

namespace {

constexpr std::uint32_t kName = 3;
constexpr std::int64_t kHold = 20;
constexpr std::int64_t kEnough = 1'000'000;

// One order with a few slots, as they are in shared memory.
struct Stand {
    explicit Stand(std::int64_t first = 100, std::int64_t reserved_end = kEnough) {
        order.start(first, reserved_end);
        for (Slot& slot : slots) slot.order = kName;
    }

    Range take(int count) {
        Range range = order.take(count);
        if (!range.empty()) return range;
        EXPECT_TRUE(order.open_region(count));
        return order.take(count);
    }
    // As a transaction does for its first message.
    Range send(Slot& slot, int count, std::int64_t at) {
        if (slot.near.view().state == Hold::State::kIdle) slot.near.publish(order.next(), at);
        const Range range = take(count);
        slot.near.count(range.size());
        return range;
    }
    Range block(Slot& slot, std::int64_t size, std::int64_t distance = 0,
                std::int64_t at_least = 0) {
        return order.take_block(slot, size, distance, at_least, &needed);
    }
    Order::Horizon horizon(std::int64_t now) {
        return order.horizon(slots.data(), slots.size(), kName, now, kHold);
    }
    // Near numbers until the counter is at `to`.
    void count_to(std::int64_t to) {
        while (order.next() < to) (void)take(1);
    }

    Order order{};
    std::array<Slot, 4> slots{};
    std::int64_t needed = 0;
};

Hold::State state(const Hold& hold) {
    return hold.view().state;
}

TEST(Order, NumbersFollowOneAnother) {
    Stand stand;
    EXPECT_TRUE(stand.order.take(1).empty()) << "no region is open";
    EXPECT_EQ(stand.take(1), (Range{100, 101}));
    EXPECT_EQ(stand.take(Order::kNearLimit), (Range{101, 101 + Order::kNearLimit}));
    EXPECT_EQ(stand.order.next(), 101 + Order::kNearLimit);
    EXPECT_EQ(stand.order.handed_out(), 1 + Order::kNearLimit);
}

TEST(Order, RegionIsLeftWhenItIsTooShort) {
    Stand stand;
    (void)stand.take(1);
    for (std::int64_t i = 1; i < Order::kRegion - 3; ++i) (void)stand.order.take(1);
    EXPECT_TRUE(stand.order.take(4).empty());
    EXPECT_EQ(stand.order.take(2).size(), 2) << "others can go on";
    EXPECT_TRUE(stand.order.open_region(4));
    EXPECT_EQ(stand.order.take(4), (Range{100 + Order::kRegion, 104 + Order::kRegion}));
    EXPECT_EQ(stand.order.handed_out(), Order::kRegion - 3 + 2 + 4) << "one was skipped";
}

TEST(Order, OpeningARegionThatIsOpenChangesNothing) {
    Stand stand;
    (void)stand.take(1);
    EXPECT_TRUE(stand.order.open_region(Order::kNearLimit));
    EXPECT_EQ(stand.take(1), (Range{101, 102}));
}

TEST(Order, NothingBeyondTheReservation) {
    Stand stand(100, 110);
    EXPECT_EQ(stand.take(8), (Range{100, 108}));
    EXPECT_TRUE(stand.order.take(3).empty());
    EXPECT_FALSE(stand.order.open_region(3));
    EXPECT_FALSE(stand.order.open_region(3)) << "asking again doesn't help";
    EXPECT_LE(stand.order.next(), 110);
    stand.order.reserve(109);
    EXPECT_EQ(stand.order.reserved_end(), 110) << "it never goes back";
    stand.order.reserve(113);
    EXPECT_TRUE(stand.order.open_region(3));
    EXPECT_EQ(stand.order.take(3), (Range{110, 113}));
    EXPECT_TRUE(stand.order.take(1).empty());
}

TEST(Order, BlockSaysWhatItNeeds) {
    Stand stand(100, 110);
    EXPECT_TRUE(stand.block(stand.slots[0], 5, 10).empty());
    EXPECT_EQ(stand.needed, 115);
    EXPECT_EQ(state(stand.slots[0].far), Hold::State::kIdle);
    stand.order.reserve(stand.needed);
    EXPECT_EQ(stand.block(stand.slots[0], 5, 10), (Range{110, 115}));
    EXPECT_EQ(stand.needed, 0);
}

TEST(Order, RegionsGoRoundBlocks) {
    Stand stand;
    EXPECT_EQ(stand.block(stand.slots[0], 5, 10), (Range{110, 115}));
    EXPECT_EQ(stand.block(stand.slots[1], 10), (Range{100, 110})) << "it fits exactly";
    EXPECT_EQ(stand.take(1), (Range{115, 116}));
    EXPECT_EQ(stand.block(stand.slots[2], 1).first, 115 + Order::kRegion) << "not in the region";
    stand.count_to(115 + Order::kRegion);
    EXPECT_EQ(stand.take(2), (Range{116 + Order::kRegion, 118 + Order::kRegion}));
}

TEST(Order, RegionEndsAtABlockAndSkipsAGapThatIsTooSmall) {
    Stand stand;
    EXPECT_EQ(stand.block(stand.slots[0], 10, 5), (Range{105, 115}));
    EXPECT_EQ(stand.block(stand.slots[1], 10, 17), (Range{117, 127}));
    EXPECT_EQ(stand.take(4), (Range{100, 104}));
    EXPECT_TRUE(stand.order.take(3).empty());
    EXPECT_EQ(stand.take(3), (Range{127, 130}));
    EXPECT_EQ(stand.order.handed_out(), 7);
}

TEST(Order, BlocksKeepTheirDistance) {
    Stand stand;
    EXPECT_EQ(stand.block(stand.slots[0], 5, 50), (Range{150, 155}));
    EXPECT_EQ(stand.block(stand.slots[1], 5, 48), (Range{155, 160})) << "in the way";
    EXPECT_EQ(stand.block(stand.slots[0], 5, 0, 155), (Range{160, 165}));
    EXPECT_EQ(stand.block(stand.slots[2], 5, 0, 1000), (Range{1000, 1005}));
    EXPECT_EQ(stand.slots[0].far.view().low, 150) << "the first one counts";
}

TEST(Order, BlocksGrowUntilSomethingIsInTheWay) {
    Stand stand(100, 400);
    EXPECT_TRUE(stand.order.extend_block(stand.slots[0], 1).empty()) << "has none";
    (void)stand.block(stand.slots[0], 5, 50);
    (void)stand.block(stand.slots[0], 5, 100);
    (void)stand.block(stand.slots[1], 5, 120);
    EXPECT_EQ(stand.order.extend_block(stand.slots[0], 10), (Range{205, 215}));
    EXPECT_TRUE(stand.order.extend_block(stand.slots[0], 6).empty());
    EXPECT_EQ(stand.order.extend_block(stand.slots[0], 5), (Range{215, 220}));
    EXPECT_TRUE(stand.order.extend_block(stand.slots[0], 1).empty());
    EXPECT_TRUE(stand.order.extend_block(stand.slots[1], 176).empty()) << "the reservation";
    EXPECT_EQ(stand.order.extend_block(stand.slots[1], 175), (Range{225, 400}));
}

TEST(Order, BlockThatTheCounterHasReachedDoesNotGrow) {
    Stand stand;
    const Range block = stand.block(stand.slots[0], 5, 10);
    (void)stand.take(1);
    EXPECT_FALSE(stand.order.extend_block(stand.slots[0], 1).empty()) << "the region is before it";
    stand.order.advance(block.end);
    EXPECT_FALSE(stand.order.extend_block(stand.slots[0], 1).empty()) << "just behind the counter";
    (void)stand.take(1);
    EXPECT_TRUE(stand.order.extend_block(stand.slots[0], 1).empty());
}

TEST(Order, TheTableOfBlocksHasAnEnd) {
    Stand stand;
    for (int i = 0; i < Order::kMaxBlocks; ++i)
        ASSERT_EQ(stand.block(stand.slots[static_cast<std::size_t>(i % 2)], 2).size(), 2);
    EXPECT_TRUE(stand.block(stand.slots[2], 2).empty());
    EXPECT_EQ(stand.needed, 0) << "more numbers would not help";
    EXPECT_EQ(state(stand.slots[2].far), Hold::State::kIdle);
    stand.order.release_blocks(stand.slots[0], 0, 0);
    std::set<std::int64_t> starts;
    for (int i = 0; i < Order::kMaxBlocks / 2; ++i)
        starts.insert(stand.block(stand.slots[2], 2).first);
    EXPECT_EQ(starts.size(), Order::kMaxBlocks / 2);
    EXPECT_TRUE(stand.block(stand.slots[2], 2).empty());
    EXPECT_EQ(*starts.begin(), 100) << "where a released one was";
}

TEST(Order, NumbersThatNobodyUsedAreUsedByRegions) {
    Stand stand;
    (void)stand.block(stand.slots[0], 10, 5);
    stand.order.release_blocks(stand.slots[1], 0, 0);
    EXPECT_EQ(stand.take(5), (Range{100, 105}));
    stand.order.release_blocks(stand.slots[0], 0, 0);
    EXPECT_EQ(stand.take(1), (Range{105, 106}));
}

TEST(Order, NumbersThatWereUsedAreNotUsedAgain) {
    Stand stand;
    const Range block = stand.block(stand.slots[0], 10, 500);
    stand.order.release_blocks(stand.slots[0], block.first + 3, 3);
    EXPECT_EQ(stand.order.handed_out(), 3);
    EXPECT_EQ(stand.take(1).first, block.first + 3) << "whether it was rolled back or not";
    EXPECT_GE(stand.block(stand.slots[1], 10, 0).first, block.first + 4);
}

TEST(Order, TheCounterMovesForwardsOnly) {
    Stand stand;
    (void)stand.take(1);
    stand.order.advance(50);
    EXPECT_EQ(stand.order.next(), 101);
    stand.order.advance(103);
    EXPECT_EQ(stand.take(1), (Range{103, 104})) << "inside the region";
    const Range block = stand.block(stand.slots[0], 10, 500);
    stand.order.advance(block.end);
    EXPECT_TRUE(stand.order.take(1).empty()) << "beyond the region";
    EXPECT_EQ(stand.take(1), (Range{block.end, block.end + 1}));
    EXPECT_EQ(stand.order.handed_out(), 3);
}

TEST(Order, CounterAmongOtherBlocksStartsBehindThem) {
    Stand stand;
    const Range mine = stand.block(stand.slots[0], 10, 10);
    const Range theirs = stand.block(stand.slots[1], 10, 20);
    ASSERT_EQ(mine.end, theirs.first);
    stand.order.advance(mine.end);
    EXPECT_EQ(stand.take(1).first, theirs.end);
}

TEST(Hold, OneOfCommittingAndLateWins) {
    Stand stand;
    Hold& hold = stand.slots[0].near;
    EXPECT_TRUE(hold.decide()) << "nothing to lose";
    (void)stand.send(stand.slots[0], 1, 1000);
    EXPECT_TRUE(hold.decide());
    EXPECT_EQ(state(hold), Hold::State::kCommitting);
    EXPECT_TRUE(hold.decide()) << "it stays so";
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(9000).position, 99) << "a commit is waited for";
    EXPECT_EQ(stand.horizon(9000).deadline, Order::kNever);
    hold.clear();
    EXPECT_EQ(stand.horizon(9000).position, 101);

    (void)stand.send(stand.slots[0], 1, 1000);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(9000).position, 103);
    EXPECT_EQ(state(hold), Hold::State::kLate);
    EXPECT_FALSE(hold.decide());
    EXPECT_FALSE(hold.decide());
    (void)stand.send(stand.slots[0], 1, 9000);
    EXPECT_EQ(state(hold), Hold::State::kLate) << "late for good, with what it takes";
    EXPECT_EQ(stand.horizon(9000).position, 104);
}

TEST(Hold, GivenUpIsPassed) {
    Stand stand;
    (void)stand.send(stand.slots[0], 1, 1000);
    (void)stand.take(1);
    ASSERT_TRUE(stand.slots[0].near.decide());
    EXPECT_EQ(stand.horizon(1000).position, 99);
    stand.slots[0].near.give_up();
    EXPECT_EQ(stand.horizon(1000).position, 101);
    EXPECT_FALSE(stand.slots[0].near.decide());
}

TEST(Horizon, IsBelowTheCounter) {
    Stand stand;
    EXPECT_EQ(stand.horizon(1000).position, 99);
    (void)stand.take(3);
    EXPECT_EQ(stand.horizon(1000).position, 102);
    EXPECT_EQ(stand.horizon(1000).deadline, Order::kNever);
}

TEST(Horizon, WaitsForWhoeverIsOpenUntilItIsLate) {
    Stand stand;
    (void)stand.send(stand.slots[0], 2, 1000);
    (void)stand.send(stand.slots[1], 1, 1005);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(1006).position, 99);
    EXPECT_EQ(stand.horizon(1006).deadline, 1000 + kHold) << "the earlier of the two";
    EXPECT_EQ(stand.horizon(1019).position, 99);
    EXPECT_EQ(stand.horizon(1020).position, 101) << "the second one's is next";
    EXPECT_EQ(stand.horizon(1020).deadline, 1005 + kHold);
    EXPECT_EQ(state(stand.slots[0].near), Hold::State::kLate);
    EXPECT_EQ(state(stand.slots[1].near), Hold::State::kOpen);
    stand.slots[1].near.clear();
    EXPECT_EQ(stand.horizon(1021).position, 103);
}

TEST(Horizon, NobodyWaitsForATransactionThatIsAlone) {
    Stand stand;
    (void)stand.send(stand.slots[0], 1, 1000);
    (void)stand.send(stand.slots[0], 2, 5000);
    EXPECT_EQ(stand.horizon(9000).position, 99);
    EXPECT_EQ(stand.horizon(9000).deadline, Order::kNever) << "no timer";
    EXPECT_EQ(state(stand.slots[0].near), Hold::State::kOpen);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(9000).position, 103) << "now somebody does, and it is long open";
    EXPECT_EQ(state(stand.slots[0].near), Hold::State::kLate);
}

TEST(Horizon, LowMarkOfOldDoesNotMoveItBack) {
    Stand stand;
    const std::int64_t low = stand.order.next();
    (void)stand.take(5);
    EXPECT_EQ(stand.horizon(1000).position, 104);
    stand.slots[0].near.publish(low, 1001);
    EXPECT_EQ(stand.horizon(1001).position, 104);
    const Range mine = stand.take(1);
    stand.slots[0].near.count(1);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(1002).position, mine.first - 1);
}

TEST(Horizon, BlockCountsFromWhenTheCounterIsBeyondIt) {
    Stand stand;
    const Range block = stand.block(stand.slots[0], 10, 5);
    EXPECT_EQ(stand.slots[0].far.view().low, block.first);
    EXPECT_EQ(stand.slots[0].far.view().since, 0);
    (void)stand.take(5);
    EXPECT_EQ(stand.horizon(5000).position, 104) << "nobody waits for it";
    EXPECT_EQ(stand.horizon(5000).deadline, Order::kNever);
    const Range beyond = stand.take(1);
    EXPECT_EQ(beyond.first, block.end);
    EXPECT_EQ(stand.horizon(9000).position, 104);
    EXPECT_EQ(stand.slots[0].far.view().since, 9000);
    EXPECT_EQ(stand.horizon(9019).deadline, 9000 + kHold);
    EXPECT_EQ(stand.horizon(9020).position, beyond.first);
    EXPECT_FALSE(stand.slots[0].far.decide());
    EXPECT_EQ(stand.block(stand.slots[0], 3).first, beyond.first + Order::kRegion);
    EXPECT_EQ(state(stand.slots[0].far), Hold::State::kLate) << "with all it takes";
    stand.slots[0].far.clear();
    const Range again = stand.block(stand.slots[0], 3);
    EXPECT_EQ(stand.slots[0].far.view().low, again.first);
    EXPECT_EQ(stand.slots[0].far.view().since, 0) << "a new one starts anew";
}

TEST(Horizon, CommitOfABlockMovesTheCounterPastIt) {
    Stand stand;
    (void)stand.take(1);
    const Range block = stand.block(stand.slots[0], 10, 5000);
    ASSERT_TRUE(stand.slots[0].far.decide());
    EXPECT_EQ(stand.horizon(1000).position, 100) << "still far";
    stand.order.advance(block.end);
    EXPECT_EQ(stand.horizon(9000).position, block.first - 1) << "not a message of it before all";
    stand.slots[0].far.clear();
    stand.order.release_blocks(stand.slots[0], block.end, 10);
    EXPECT_EQ(stand.horizon(9000).position, block.end - 1);
    EXPECT_EQ(stand.take(1).first, block.end);
}

TEST(Horizon, NearAndFarOfOneSlotAreLateEachForItself) {
    Stand stand;
    (void)stand.send(stand.slots[0], 1, 1000);
    const Range block = stand.block(stand.slots[0], 10, 2000);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(1020).position, 101);
    EXPECT_FALSE(stand.slots[0].near.decide());
    EXPECT_TRUE(stand.slots[0].far.decide());
    EXPECT_EQ(stand.slots[0].far.view().low, block.first);
}

TEST(Horizon, OtherOrdersDoNotCount) {
    Stand stand;
    (void)stand.send(stand.slots[0], 1, 1000);
    stand.slots[0].order = kName + 1;
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(1001).position, 101);
    EXPECT_EQ(state(stand.slots[0].near), Hold::State::kOpen);
}

TEST(Horizon, ClocksMayDisagreeALittle) {
    Stand stand;
    (void)stand.send(stand.slots[0], 1, 1000);
    (void)stand.take(1);
    EXPECT_EQ(stand.horizon(990).position, 99);
    EXPECT_EQ(stand.horizon(990).deadline, 1000 + kHold);
}

}  // namespace
}  // namespace herald
