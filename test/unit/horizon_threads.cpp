// The order of messages under real threads; meant for the thread sanitizer, too.

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "core/horizon.h"
#include "horizon_workload.h"

namespace herald::test {
namespace {

struct Core {
    using Order = herald::Order;
    using Slot = herald::Slot;
    using Hold = herald::Hold;
    using Range = herald::Range;
};

class Threads {
  public:
    using Lock = std::mutex;

    void pause(Dice& dice) {
        if (dice.one_in(4)) std::this_thread::yield();
    }

    void run(std::vector<std::function<void()>> actors) {
        std::vector<std::thread> threads;
        threads.reserve(actors.size());
        for (auto& actor : actors) threads.emplace_back(std::move(actor));
        for (std::thread& thread : threads) thread.join();
    }
};

TEST(HorizonStress, Threads) {
    (void)run_seeds("horizon, threads", 100, [](std::uint64_t seed, WorkloadCounts& sum) {
        Threads threads;
        const auto workload =
            std::make_unique<Workload<Core, Threads>>(threads, WorkloadSize{6, 2, 50}, seed);
        auto failures = workload->run();
        sum.add(workload->counts());
        return failures;
    });
}

}  // namespace
}  // namespace herald::test
