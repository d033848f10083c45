// The order of messages when its users change places at any access to shared memory. One actor runs
// at a time, and the seed alone says which: a failure can be repeated exactly.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "horizon_workload.h"

namespace herald::test {
namespace {

// Actors, each a thread of its own that runs only when it is its turn.
class Steps {
  public:
    explicit Steps(std::uint64_t seed)
        : dice_(seed), calm_(std::int64_t{1} << dice_.number(0, 5)) {}

    // Among the others only the one whose turn it is comes here.
    class Lock {
      public:
        void lock() {
            while (locked_) current().give_way();
            locked_ = true;
        }
        void unlock() { locked_ = false; }

      private:
        bool locked_ = false;
    };

    void pause(Dice&) { step(); }

    void run(std::vector<std::function<void()>> actors) {
        asleep_.assign(actors.size(), 0);
        turn_ =
            static_cast<std::size_t>(dice_.number(0, static_cast<std::int64_t>(actors.size()) - 1));
        wakers_ = std::vector<std::condition_variable>(actors.size());
        left_ = actors.size();
        std::vector<std::thread> threads;
        threads.reserve(actors.size());
        for (std::size_t i = 0; i < actors.size(); ++i) {
            threads.emplace_back([this, i, actor = std::move(actors[i])] {
                current_ = this;
                wait_for_turn(i);
                actor();
                asleep_[i] = kForever;
                if (--left_ > 0) pass_on(choose());
            });
        }
        for (std::thread& thread : threads) thread.join();
    }

    // An access to shared memory is about to happen.
    static void step() {
        if (current_ != nullptr) current_->maybe_give_way();
        if (interjection_ && accesses_to_go_-- == 0) std::exchange(interjection_, nullptr)();
    }
    // Without actors: does something before one of the coming accesses, the `number`th from 0.
    static void interject(int number, std::function<void()> what) {
        accesses_to_go_ = number;
        interjection_ = std::move(what);
    }
    // Whether it has been done; if not it is forgotten.
    static bool interjected() { return std::exchange(interjection_, nullptr) == nullptr; }
    // Whether an exchange that may fail for no reason does so.
    static bool unlucky() { return current_ != nullptr && current_->dice_.one_in(16); }

  private:
    static constexpr std::int64_t kForever = INT64_MAX;

    static Steps& current() { return *current_; }

    void maybe_give_way() {
        ++time_;
        if (!dice_.one_in(calm_)) return;
        // Some are held up at this place for long.
        if (dice_.one_in(20)) asleep_[turn_] = time_ + dice_.number(1, 300);
        give_way();
    }

    void give_way() {
        ++time_;
        const std::size_t self = turn_;
        const std::size_t next = choose();
        if (next == self) return;
        pass_on(next);
        wait_for_turn(self);
    }

    std::size_t choose() {
        const auto actors = static_cast<std::int64_t>(asleep_.size());
        const auto start = static_cast<std::size_t>(dice_.number(0, actors - 1));
        std::size_t earliest = start;
        for (std::size_t i = 0; i < asleep_.size(); ++i) {
            const std::size_t each = (start + i) % asleep_.size();
            if (asleep_[each] <= time_) return each;
            if (asleep_[each] < asleep_[earliest]) earliest = each;
        }
        return earliest;
    }

    void pass_on(std::size_t next) {
        const std::lock_guard guard(turn_lock_);
        turn_ = next;
        wakers_[next].notify_one();
    }

    void wait_for_turn(std::size_t self) {
        std::unique_lock guard(turn_lock_);
        wakers_[self].wait(guard, [&] { return turn_ == self; });
    }

    static thread_local Steps* current_;
    static thread_local std::function<void()> interjection_;
    static thread_local int accesses_to_go_;

    Dice dice_;
    const std::int64_t calm_;  // how many accesses an actor makes in a row
    std::int64_t time_ = 0;
    std::size_t left_ = 0;
    std::vector<std::int64_t> asleep_;  // until when

    std::mutex turn_lock_;
    std::size_t turn_ = 0;
    std::vector<std::condition_variable> wakers_;
};

thread_local Steps* Steps::current_ = nullptr;
thread_local std::function<void()> Steps::interjection_;
thread_local int Steps::accesses_to_go_ = 0;

}  // namespace

// A second build of the core, with atomics that let others go first.
namespace stepped {
namespace std {

using namespace ::std;

template <class T>
class atomic {
  public:
    static constexpr bool is_always_lock_free = true;

    T load(memory_order) const {
        Steps::step();
        return value_;
    }
    void store(T value, memory_order = memory_order_seq_cst) {
        Steps::step();
        value_ = value;
    }
    void operator=(T value) { store(value); }
    T fetch_add(T more, memory_order) {
        Steps::step();
        const T before = value_;
        value_ += more;
        return before;
    }
    bool compare_exchange_strong(T& expected, T desired, memory_order) {
        Steps::step();
        if (value_ == expected) {
            value_ = desired;
            return true;
        }
        expected = value_;
        return false;
    }
    bool compare_exchange_weak(T& expected, T desired, memory_order order) {
        if (!Steps::unlucky()) return compare_exchange_strong(expected, desired, order);
        expected = load(order);
        return false;
    }

  private:
    T value_{};
};

}  // namespace std

#include "core/horizon.cpp"

struct Core {
    using Order = herald::Order;
    using Slot = herald::Slot;
    using Hold = herald::Hold;
    using Range = herald::Range;
};

}  // namespace stepped

namespace {

// A transaction that is alone needs no timer. While the horizon is computed it may take another
// number, which must not be mistaken for that of somebody who waits.
TEST(HorizonSteps, OwnNumberTakenMeanwhileHidesNobodyElses) {
    bool meanwhile = true;
    for (int access = 0; meanwhile; ++access) {
        stepped::Core::Order order{};
        std::array<stepped::Core::Slot, 1> slots{};
        stepped::Core::Hold& hold = slots[0].near;
        order.start(100, 1000);
        ASSERT_TRUE(order.open_region(1));
        hold.publish(100, 1);
        hold.count(order.take(1).size());
        const auto waiting = order.take(1);
        Steps::interject(access, [&] { hold.count(order.take(1).size()); });
        const auto horizon = order.horizon(slots.data(), 1, 0, 10, 20);
        meanwhile = Steps::interjected();
        EXPECT_LT(horizon.position, waiting.first);
        EXPECT_EQ(horizon.deadline, 21) << "before access " << access;
    }
}

WorkloadCounts run_steps(const char* what, int seeds, WorkloadSize (*size)(Dice&)) {
    return run_seeds(what, seeds, [&](std::uint64_t seed, WorkloadCounts& sum) {
        Dice dice(seed);
        Steps steps(dice.next());
        const auto workload =
            std::make_unique<Workload<stepped::Core, Steps>>(steps, size(dice), dice.next());
        auto failures = workload->run();
        sum.add(workload->counts());
        return failures;
    });
}

// Few actors and few transactions: the ways they can meet are few, and most of them are seen.
TEST(HorizonStress, ShortSteps) {
    run_steps("horizon, short", 2000, [](Dice& dice) {
        return WorkloadSize{static_cast<int>(dice.number(2, 3)),
                            static_cast<int>(dice.number(0, 1)),
                            static_cast<int>(dice.number(1, 3))};
    });
}

TEST(HorizonStress, LongSteps) {
    const WorkloadCounts counts = run_steps("horizon, long", 100, [](Dice& dice) {
        return WorkloadSize{static_cast<int>(dice.number(3, 6)), 2, 20};
    });
    if (HasFailure() || counts.commits < 5000) return;
    for (const std::int64_t each :
         {counts.aborts, counts.near_late, counts.far_late, counts.late_again, counts.into_room,
          counts.extended, counts.overtaken, counts.horizons})
        EXPECT_GT(each, 0) << "too tame: " << counts;
}

}  // namespace
}  // namespace herald::test
