// Positions and the horizon: the one order of all messages (G2) without a lock between senders.
// Plain C++ over zero-filled shared memory; whoever uses it supplies processes, time and one lock.
//
// Numbers
//   next: the counter. Senders take near numbers from it, a few at a time, inside the open region
//   [next, near_end). Regions are short and are opened under the lock; they skip the *blocks*:
//   numbers ahead of the counter that a bulk sender has for itself. Numbers below reserved_end are
//   durably reserved, so none is handed out twice, whatever crashes. next never goes back. At the
//   end of a transaction, committed or not, it moves past the block that was used.
//
// Holds
//   Each backend has a slot with two holds, one for its near numbers and one for its blocks. A hold
//   is one word, a state and a low mark: all numbers that its transaction has there are >= low.
//
//                 publish                decide                  clear
//        idle ------------> open(low) ------------> committing ---------> idle
//                               |                    (late: renumbers first)
//                               | overtaken by a horizon
//                               v
//                             late  ---- publish (new numbers) ----> open -> ...
//
//   Only its owner changes a hold, but for open -> late, which any computation of the horizon may
//   do after max_hold. Both that and open -> committing are compare-and-swap on the same word: one
//   of them wins. A late hold's numbers never become visible: its owner renumbers its messages.
//
// The horizon is the highest h such that every message at or below h is decided. With all accesses
// sequentially consistent:
//   sender    S1 low := next   S2 publish open(low)   S3 take p from next (p >= low)
//             ... S4 its transaction becomes visible (or is gone), S5 clear
//   reader    R1 c := next     R2 read every hold: h := min(c, all lows) - 1   R3 take a snapshot
//   Let p <= h be a number that was handed out, and not of a late hold. p < c, so S3 came before R1
//   (next only grows), S2 before S3 and R1 before R2. If R2 had seen the hold open or committing,
//   then h < low <= p. So R2 saw it cleared (or open again for a later transaction): S4 came before
//   S5 before R2 before R3, and the snapshot of R3 has the message if it was committed. A number
//   taken after R1 is >= c > h. Hence nothing new can appear at or below h after R3.
//   A block [f, f+n) is published open(f) under the lock while f >= near_end; the counter passes f
//   only under the lock (a region that skips it, a commit that moves the counter), hence later
//   than S2, and the same argument holds with "the counter passed p" in the place of S3.
//   Before it becomes visible, a transaction with a block moves the counter past its last number,
//   so one that begins afterwards gets higher numbers; near numbers have that anyway.
// floor_ keeps what was once computed: it stays true, and makes the horizon never go back. (Without
// it a sender that publishes a low mark it read a while ago would lower it for a moment.)
//
// Why max_hold is kept: an open hold blocks the horizon only if some number at or above its low
// mark was given to somebody else; then `since` says from when it counts. For a block that is the
// moment the counter was first seen beyond it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace herald {

// Half-open: [first, end).
struct Range {
    std::int64_t first = 0;
    std::int64_t end = 0;

    bool empty() const { return first >= end; }
    std::int64_t size() const { return end - first; }
};

// One part of a transaction's claim on the order; see above.
class Hold {
  public:
    enum class State : std::uint8_t { kIdle, kOpen, kLate, kCommitting };
    struct View {
        State state;
        std::int64_t low;
        std::int64_t since;  // microseconds; 0: holds nobody back yet
    };

    // Owner: from here on numbers >= low may become visible. `since` 0 if the counter is not there.
    void publish(std::int64_t low, std::int64_t since);
    // Owner: n more numbers are its own.
    void count(std::int64_t n) { taken_.fetch_add(n, std::memory_order_release); }
    // Owner: true if it may become visible with its numbers (also when idle), false if it is late.
    bool decide();
    // Owner: gives its numbers up, to be renumbered.
    void give_up();
    // Owner: after its transaction is visible or gone.
    void clear() { word_.store(0, std::memory_order_seq_cst); }

    View view() const;
    // Any: how far this hold lets the horizon go, if the counter `next` stood at `counter`: the low
    // mark, or `counter` if it doesn't hold it back. After max_hold (microseconds) it is made late.
    // `deadline` is lowered to the time at which that will happen.
    std::int64_t bound(const std::atomic<std::int64_t>& next, std::int64_t counter,
                       std::int64_t now, std::int64_t max_hold, std::int64_t& deadline);

  private:
    static constexpr int kStateBits = 2;
    static std::uint64_t pack(std::int64_t low, State state) {
        return static_cast<std::uint64_t>(low) << kStateBits | static_cast<std::uint64_t>(state);
    }
    static State state_of(std::uint64_t word) {
        return static_cast<State>(word & ((1U << kStateBits) - 1));
    }
    static std::int64_t low_of(std::uint64_t word) {
        return static_cast<std::int64_t>(word >> kStateBits);
    }

    std::atomic<std::uint64_t> word_;
    std::atomic<std::int64_t> since_;
    std::atomic<std::int64_t> taken_;
};

// What one backend holds. A slot belongs to one order at a time; `order` names it (0: none).
struct alignas(64) Slot {
    std::atomic<std::uint32_t> order;
    std::atomic<std::int32_t> pid;
    Hold near;
    Hold far;
};

// The order of one database. Zero-filled memory plus start() is a valid one.
class Order {
  public:
    static constexpr int kMaxBlocks = 512;
    // Near numbers that one transaction takes at most; what it sends beyond goes into a block.
    static constexpr int kNearLimit = 32;
    // Numbers of a region: the lock is taken once for so many.
    static constexpr std::int64_t kRegion = 4096;

    // Numbers go on from `first`; those below `reserved_end` are reserved. Before anybody uses it.
    void start(std::int64_t first, std::int64_t reserved_end);

    // Takes `count` numbers (1..kNearLimit), one after the other; empty if the region has not so
    // many left: open_region, then try again. The near hold is published.
    Range take(int count);

    // Everything below is called under the lock.

    // Opens a region with at least `count` numbers. False if the reservation has no room for it:
    // reserve more, then try again.
    bool open_region(int count);
    // A block of `size` numbers for the owner of a slot, at least `distance` ahead of the counter
    // and not below `at_least`; the slot's first one is published as its far hold. Empty if there
    // are too many blocks, or if the reservation doesn't reach so far: then *needed is where it has
    // to reach.
    Range take_block(Slot& slot, std::int64_t size, std::int64_t distance, std::int64_t at_least,
                     std::int64_t* needed);
    // Makes the last block of a slot longer; empty if its neighbour or the reservation is in the
    // way.
    Range extend_block(const Slot& slot, std::int64_t size);
    // The counter goes on at `to` or above.
    void advance(std::int64_t to);
    // The blocks of a slot are no longer its own. `count` numbers below `used` were handed out from
    // them, and the owner has seen them: the counter goes on above.
    void release_blocks(const Slot& slot, std::int64_t used, std::int64_t count);
    void reserve(std::int64_t end) {
        if (end > reserved_end()) reserved_end_.store(end, std::memory_order_seq_cst);
    }

    // No lock for these.
    std::int64_t next() const { return next_.load(std::memory_order_seq_cst); }
    std::int64_t reserved_end() const { return reserved_end_.load(std::memory_order_seq_cst); }
    // Numbers handed out, without those that were skipped; those of a block when it is released.
    std::int64_t handed_out() const { return next() - skipped_.load(std::memory_order_relaxed); }

    struct Horizon {
        std::int64_t position;  // everything up to here is decided
        std::int64_t deadline;  // when a hold that is in the way becomes late; kNever if none is
    };
    static constexpr std::int64_t kNever = INT64_MAX;
    // The horizon over the slots of order `name`; makes late what has held longer than max_hold.
    // Times are microseconds of one monotonic clock.
    // `except`: a slot whose owner asks about all others.
    Horizon horizon(Slot* slots, std::size_t count, std::uint32_t name, std::int64_t now,
                    std::int64_t max_hold, const Slot* except = nullptr);

  private:
    struct Block {
        Range range;
        const Slot* owner;
    };

    Block* last_block_of(const Slot& slot);
    // The lowest start >= from where `size` numbers meet no block.
    std::int64_t gap(std::int64_t from, std::int64_t size) const;
    const Block* first_block_meeting(Range range) const;

    std::atomic<std::int64_t> next_;
    std::atomic<std::int64_t> near_end_;
    std::atomic<std::int64_t> reserved_end_;
    std::atomic<std::int64_t> floor_;
    std::atomic<std::int64_t> skipped_;
    int block_count_;
    Block blocks_[kMaxBlocks];
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "shared between processes");

}  // namespace herald
