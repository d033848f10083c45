#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "horizon_workload.h"

namespace herald::test {

void WorkloadCounts::add(const WorkloadCounts& other) {
    taken += other.taken;
    commits += other.commits;
    aborts += other.aborts;
    near_late += other.near_late;
    far_late += other.far_late;
    late_again += other.late_again;
    into_room += other.into_room;
    extended += other.extended;
    stuck += other.stuck;
    overtaken += other.overtaken;
    horizons += other.horizons;
}

std::ostream& operator<<(std::ostream& out, const WorkloadCounts& counts) {
    return out << counts.commits << " commits, " << counts.aborts << " aborts, " << counts.near_late
               << " near late, " << counts.far_late << " far late, " << counts.late_again
               << " late again, " << counts.into_room << " into the room, " << counts.extended
               << " extended, " << counts.stuck << " stuck, " << counts.overtaken
               << " holds overtaken, " << counts.horizons << " horizons";
}

WorkloadCounts run_seeds(
    const char* what, int seeds,
    const std::function<std::vector<std::string>(std::uint64_t seed, WorkloadCounts&)>& run) {
    const char* first = std::getenv("HERALD_SEED");
    const char* many = std::getenv("HERALD_SEEDS");
    std::uint64_t seed =
        first != nullptr ? std::strtoull(first, nullptr, 10) : std::random_device{}();
    const int count = many != nullptr ? std::atoi(many) : seeds;
    std::cout << what << ": HERALD_SEED=" << seed << " HERALD_SEEDS=" << count << "\n";
    WorkloadCounts counts;
    for (int i = 0; i < count && !::testing::Test::HasFailure(); ++i, ++seed) {
        for (const std::string& failure : run(seed, counts))
            ADD_FAILURE() << failure << " (HERALD_SEED=" << seed << " HERALD_SEEDS=1)";
    }
    std::cout << counts << "\n";
    return counts;
}

}  // namespace herald::test
