// What senders, readers and the dispatcher do with the order of messages, done at random, and the
// check of what came out of it. It is written once for two worlds: real threads
// (horizon_threads.cpp), and actors of which one runs at a time and which change places at any
// access to shared memory, as the seed says (horizon_steps.cpp).
//
// The log stands for PostgreSQL: a transaction becomes visible by entering it, and a snapshot is
// its length at that moment.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

namespace herald::test {

// Seeded in no time, unlike the generators of <random>: there are thousands of short runs.
class Dice {
  public:
    explicit Dice(std::uint64_t seed) : state_(seed) {}
    // From low to high, both included.
    std::int64_t number(std::int64_t low, std::int64_t high) {
        return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
    }
    bool one_in(std::int64_t n) { return number(1, n) == 1; }
    // splitmix64, by Sebastiano Vigna
    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

  private:
    std::uint64_t state_;
};

struct WorkloadSize {
    int senders;
    int readers;
    int transactions;  // of each sender
};

// How often the rare things happened.
struct WorkloadCounts {
    std::int64_t taken = 0;  // numbers: near ones, and of blocks when they are released
    std::int64_t commits = 0;
    std::int64_t aborts = 0;
    std::int64_t near_late = 0;
    std::int64_t far_late = 0;
    std::int64_t late_again = 0;  // while renumbering
    std::int64_t into_room = 0;   // near part renumbered into the block
    std::int64_t extended = 0;    // blocks
    std::int64_t stuck = 0;       // transactions that never end
    std::int64_t overtaken = 0;   // holds of these
    std::int64_t horizons = 0;    // different ones that a reader has seen

    void add(const WorkloadCounts& other);
};
std::ostream& operator<<(std::ostream& out, const WorkloadCounts& counts);

// Core: the types of one build of core/horizon. World: Lock, pause(), run().
template <class Core, class World>
class Workload {
  public:
    Workload(World& world, const WorkloadSize& size, std::uint64_t seed)
        : world_(world),
          size_(size),
          dice_(seed),
          max_hold_(dice_.one_in(3) ? dice_.number(0, 5) : dice_.number(0, 300)),
          longest_distance_(dice_.one_in(2) ? 3 : 2000),
          most_reserved_(dice_.one_in(2) ? 20 : 10'000),
          far_(!dice_.one_in(4)),
          slots_(static_cast<std::size_t>(size.senders)),
          counts_(slots_.size()),
          active_(size.senders) {
        order_.start(1, 1 + dice_.number(0, most_reserved_));
        for (auto& slot : slots_) slot.order = kName;
    }

    // What went wrong; nothing if all is well.
    std::vector<std::string> run() {
        std::vector<std::function<void()>> actors;
        for (std::size_t i = 0; i < slots_.size(); ++i)
            actors.push_back([this, i, dice = Dice(dice_.next())]() mutable { send(i, dice); });
        for (int i = 0; i < size_.readers; ++i)
            actors.push_back([this, dice = Dice(dice_.next())]() mutable { read(dice); });
        actors.push_back([this, dice = Dice(dice_.next())]() mutable { dispatch(dice); });
        world_.run(std::move(actors));
        settle();
        check_log();
        check_looks();
        return failures_;
    }

    WorkloadCounts counts() const {
        WorkloadCounts sum;
        for (const WorkloadCounts& each : counts_) sum.add(each);
        for (const auto& slot : slots_) {
            for (const auto* hold : {&slot.near, &slot.far})
                sum.overtaken += hold->view().state == Core::Hold::State::kLate;
        }
        sum.horizons = static_cast<std::int64_t>(looks_.size());
        return sum;
    }

  private:
    using Order = typename Core::Order;
    using Slot = typename Core::Slot;
    using Range = typename Core::Range;

    static constexpr std::uint32_t kName = 7;

    struct Commit {
        std::size_t began;  // how many were visible then
        std::vector<std::int64_t> positions;
    };
    // A reader's or the dispatcher's horizon, and the snapshot it took then.
    struct Look {
        std::int64_t horizon;
        std::size_t snapshot;
    };
    enum class End { kCommit, kAbort, kNever };

    // One transaction; its messages are numbered in the order of sending.
    struct Transaction {
        Slot& slot;
        WorkloadCounts& counts;
        std::size_t began;
        std::vector<std::int64_t> positions;
        std::size_t near = 0;  // this many of them at the beginning are near
        Range room;            // for these, at the beginning of the first block
        Range left;            // of the last block
    };

    void pause(Dice& dice) { world_.pause(dice); }
    std::int64_t now() { return clock_.fetch_add(1) + 1; }

    std::size_t visible() {
        const std::lock_guard guard(log_lock_);
        return log_.size();
    }

    void fail(const std::string& what) {
        const std::lock_guard guard(log_lock_);
        if (failures_.size() < 5) failures_.push_back(what);
    }

    // --- senders

    void send(std::size_t self, Dice& dice) {
        for (int i = 1; i <= size_.transactions; ++i) {
            Transaction t{slots_[self], counts_[self], visible(), {}, 0, {}, {}};
            End end = dice.one_in(6) ? End::kAbort : End::kCommit;
            if (i == size_.transactions && dice.one_in(2)) end = End::kNever;
            for (auto statements = dice.number(1, 6); statements > 0; --statements) {
                pause(dice);
                if (t.left.end > 0 || (far_ && dice.one_in(5))) {
                    send_far(t, dice);
                } else {
                    send_near(t, dice);
                }
            }
            for (auto idle = dice.one_in(4) ? dice.number(0, 100) : 1; idle > 0; --idle)
                pause(dice);
            if (end == End::kCommit) end = decide(t, dice, i == size_.transactions);
            // Something else may still go wrong in a commit.
            if (end == End::kCommit && dice.one_in(12)) end = End::kAbort;
            if (end == End::kNever) {
                ++t.counts.stuck;
                break;
            }
            finish(t, end, dice);
        }
        active_.fetch_sub(1);
    }

    void send_near(Transaction& t, Dice& dice) {
        const int count = static_cast<int>(dice.number(1, dice.one_in(4) ? 12 : 2));
        if (t.near == 0) {
            const std::int64_t low = order_.next();
            pause(dice);
            t.slot.near.publish(low, now());
            pause(dice);
        }
        Range range = order_.take(count);
        while (range.empty()) {
            {
                const std::lock_guard guard(order_lock_);
                while (!order_.open_region(count))
                    order_.reserve(order_.next() + count + dice.number(0, most_reserved_));
            }
            pause(dice);
            range = order_.take(count);
        }
        if (range.size() != count) fail("take: wrong count");
        pause(dice);
        t.slot.near.count(count);
        t.counts.taken += count;
        number(t, range, count);
        t.near = t.positions.size();
    }

    void send_far(Transaction& t, Dice& dice) {
        const std::int64_t count = dice.number(1, dice.one_in(4) ? 100 : 4);
        if (t.left.end == 0) {
            const auto room = static_cast<std::int64_t>(t.near);
            const Range block = take_block(t, room + count + dice.number(0, 4),
                                           dice.number(0, longest_distance_), 0, dice);
            t.room = {block.first, block.first + room};
            t.left = {t.room.end, block.end};
        }
        if (t.left.size() < count && dice.one_in(2)) {
            const std::lock_guard guard(order_lock_);
            const Range more = order_.extend_block(t.slot, count);
            if (!more.empty()) {
                if (more.first != t.left.end) fail("extended at another place");
                t.left.end = more.end;
                ++t.counts.extended;
            }
        }
        const std::int64_t fitting = std::min(count, t.left.size());
        number(t, t.left, fitting);
        if (fitting == count) return;
        t.left =
            take_block(t, count - fitting, dice.number(0, longest_distance_), t.left.end, dice);
        number(t, t.left, count - fitting);
    }

    // Numbers the next `count` messages with the beginning of a range.
    void number(Transaction& t, Range& range, std::int64_t count) {
        for (; count > 0; --count) t.positions.push_back(range.first++);
    }

    // Call under the lock.
    Range take_block_locked(Transaction& t, std::int64_t size, std::int64_t distance,
                            std::int64_t at_least, Dice& dice) {
        for (;;) {
            std::int64_t needed = 0;
            const Range block = order_.take_block(t.slot, size, distance, at_least, &needed);
            if (!block.empty()) {
                if (block.size() != size) fail("take_block: wrong size");
                return block;
            }
            order_.reserve(needed + dice.number(0, most_reserved_));
        }
    }

    Range take_block(Transaction& t, std::int64_t size, std::int64_t distance,
                     std::int64_t at_least, Dice& dice) {
        const std::lock_guard guard(order_lock_);
        return take_block_locked(t, size, distance, at_least, dice);
    }

    // Makes sure that the transaction can become visible with its numbers; else gives it others.
    // The far hold first: while it is renumbered the near one must not hold up anybody.
    End decide(Transaction& t, Dice& dice, bool may_stop) {
        const bool far_kept = t.slot.far.decide();
        pause(dice);
        if (far_kept && t.slot.near.decide()) return End::kCommit;
        if (far_kept) {
            ++t.counts.near_late;
            if (t.left.end > 0) {
                move_into_room(t);
                return End::kCommit;
            }
        } else {
            ++t.counts.far_late;
            if (t.near > 0) t.slot.near.give_up();
            t.slot.far.clear();
        }
        return renumber(t, dice, may_stop);
    }

    void move_into_room(Transaction& t) {
        ++t.counts.into_room;
        for (std::size_t i = 0; i < t.near; ++i)
            t.positions[i] = t.room.first + static_cast<std::int64_t>(i);
    }

    End renumber(Transaction& t, Dice& dice, bool may_stop) {
        const auto size = static_cast<std::int64_t>(t.positions.size());
        std::int64_t distance = dice.number(0, longest_distance_);
        for (int round = 1;; ++round, distance *= 2) {
            pause(dice);
            {
                const std::lock_guard guard(order_lock_);
                Range block = take_block_locked(t, size, distance, 0, dice);
                t.positions.clear();
                number(t, block, size);
                // In the end before writing: nobody moves the counter past the block meanwhile.
                if (round == 3) {
                    if (!t.slot.far.decide()) fail("late before the counter is there");
                    return End::kCommit;
                }
            }
            for (auto writing = dice.number(0, 40); writing > 0; --writing) pause(dice);
            if (may_stop && dice.one_in(4)) return End::kNever;
            if (dice.one_in(10)) return End::kAbort;
            if (t.slot.far.decide()) return End::kCommit;
            ++t.counts.late_again;
            t.slot.far.clear();
        }
    }

    void finish(Transaction& t, End end, Dice& dice) {
        const std::int64_t used = t.positions.empty() ? 0 : t.positions.back() + 1;
        const auto far = static_cast<std::int64_t>(t.positions.size() - t.near);
        t.counts.taken += far;
        pause(dice);
        if (end == End::kCommit) {
            if (t.slot.far.view().state != Core::Hold::State::kIdle) {
                const std::lock_guard guard(order_lock_);
                order_.advance(used);
            }
            pause(dice);
            ++t.counts.commits;
            const std::lock_guard guard(log_lock_);
            log_.push_back({t.began, std::move(t.positions)});
        } else {
            ++t.counts.aborts;
        }
        pause(dice);
        const bool near_first = dice.one_in(2);
        if (near_first) t.slot.near.clear();
        t.slot.far.clear();
        if (!near_first) t.slot.near.clear();
        if (dice.one_in(2)) rung_.store(true);
        {
            const std::lock_guard guard(order_lock_);
            order_.release_blocks(t.slot, used, far);
            if (dice.one_in(12)) move_counter(dice);
        }
        rung_.store(true);
    }

    // As for the beginning of a new segment, wherever that is. Call under the lock.
    void move_counter(Dice& dice) {
        const std::int64_t to = order_.next() + dice.number(0, 8);
        order_.reserve(to);
        order_.advance(to);
    }

    // --- readers

    // The horizon as anybody asks for it, with all that can be said at once.
    typename Order::Horizon look(std::vector<Look>& looks, Dice& dice) {
        const std::int64_t before = highest_.load();
        const auto horizon = order_.horizon(slots_.data(), slots_.size(), kName, now(), max_hold_);
        if (horizon.position < before)
            fail("went back: " + std::to_string(before) + " to " +
                 std::to_string(horizon.position));
        if (horizon.deadline != Order::kNever && horizon.deadline > now() + max_hold_)
            fail("deadline too far away");
        std::int64_t highest = before;
        while (highest < horizon.position &&
               !highest_.compare_exchange_weak(highest, horizon.position)) {
        }
        pause(dice);
        // A later snapshot of the same reader for the same horizon says less.
        if (looks.empty() || looks.back().horizon != horizon.position)
            looks.push_back({horizon.position, visible()});
        return horizon;
    }

    void keep(const std::vector<Look>& looks) {
        const std::lock_guard guard(log_lock_);
        looks_.insert(looks_.end(), looks.begin(), looks.end());
    }

    void read(Dice& dice) {
        std::vector<Look> looks;
        while (active_.load() > 0) {
            (void)look(looks, dice);
            pause(dice);
        }
        keep(looks);
    }

    // Sleeps until it is rung or until the deadline it was told.
    void dispatch(Dice& dice) {
        std::vector<Look> looks;
        while (active_.load() > 0) {
            if (rung_.exchange(false) || clock_.load() >= deadline_) {
                deadline_ = look(looks, dice).deadline;
            }
            pause(dice);
        }
        keep(looks);
    }

    // --- afterwards

    // Nobody does anything any more but the dispatcher, woken by what was rung or by its deadline.
    // It must get past everything that is visible, whoever is still open.
    void settle() {
        std::vector<Look> looks;
        for (int turn = 0; turn < 3 * size_.senders + 3; ++turn) {
            if (!rung_.exchange(false)) {
                if (deadline_ == Order::kNever) break;
                clock_.store(std::max(clock_.load(), deadline_));
            }
            deadline_ = look(looks, dice_).deadline;
        }
        keep(looks);
        if (deadline_ != Order::kNever) fail("the deadline comes again and again");
        std::int64_t last = 0;
        for (const Commit& commit : log_) last = std::max(last, commit.positions.back());
        if (highest_.load() < last) fail("a message waits, and nobody has set a timer");
    }

    void check_log() {
        std::vector<std::int64_t> all;
        std::vector<std::int64_t> highest{0};  // of the first n transactions
        for (const Commit& commit : log_) {
            const auto& positions = commit.positions;
            if (!std::is_sorted(positions.begin(), positions.end()))
                fail("not in the order of sending");
            if (positions.front() <= highest[commit.began])
                fail("began after a commit, but is before it in the order");
            highest.push_back(std::max(highest.back(), positions.back()));
            all.insert(all.end(), positions.begin(), positions.end());
        }
        std::sort(all.begin(), all.end());
        if (std::adjacent_find(all.begin(), all.end()) != all.end()) fail("a position twice");
        if (!all.empty() && (all.front() < 1 || all.back() >= order_.reserved_end()))
            fail("not reserved");
        if (order_.handed_out() != counts().taken) fail("handed_out: wrong");
    }

    void check_looks() {
        // lowest[n]: the lowest position that became visible after the first n transactions.
        std::vector<std::int64_t> lowest(log_.size() + 1, INT64_MAX);
        for (std::size_t i = log_.size(); i-- > 0;)
            lowest[i] = std::min(lowest[i + 1], log_[i].positions.front());
        for (const Look& look : looks_) {
            if (lowest[look.snapshot] <= look.horizon)
                fail("at " + std::to_string(lowest[look.snapshot]) + " after horizon " +
                     std::to_string(look.horizon));
        }
    }

    World& world_;
    const WorkloadSize size_;
    Dice dice_;
    const std::int64_t max_hold_;
    const std::int64_t longest_distance_;
    const std::int64_t most_reserved_;
    const bool far_;  // whether a transaction may send a part of its messages far

    Order order_;
    typename World::Lock order_lock_;
    std::vector<Slot> slots_;
    std::vector<WorkloadCounts> counts_;  // each of its sender only

    std::atomic<std::int64_t> clock_{0};
    std::atomic<std::int64_t> highest_{0};
    std::atomic<int> active_;
    std::atomic<bool> rung_{false};
    std::int64_t deadline_ = Order::kNever;  // the dispatcher's

    std::mutex log_lock_;
    std::vector<Commit> log_;
    std::vector<Look> looks_;
    std::vector<std::string> failures_;
};

// Runs `run(seed)` for HERALD_SEEDS seeds (else `seeds`), from HERALD_SEED on (else a random one).
// Prints the seed of a run that fails.
WorkloadCounts run_seeds(
    const char* what, int seeds,
    const std::function<std::vector<std::string>(std::uint64_t seed, WorkloadCounts&)>& run);

}  // namespace herald::test
