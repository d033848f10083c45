// Random inputs whose seed is printed, so that a failing run can be repeated:
//     HERALD_SEED=<seed> herald-unit --gtest_filter=…
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace herald::test {

class Random {
  public:
    explicit Random(const char* what) : Random(what, chosen_seed()) {}
    Random(const char* what, std::uint64_t seed) : engine_(seed) {
        std::cout << what << ": HERALD_SEED=" << seed << "\n";
    }

    // From low to high, both included.
    std::int64_t number(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
    }
    bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }
    std::string text(std::string_view alphabet, std::int64_t low, std::int64_t high) {
        std::string result(static_cast<std::size_t>(number(low, high)), ' ');
        for (char& c : result)
            c = alphabet[static_cast<std::size_t>(
                number(0, static_cast<std::int64_t>(alphabet.size()) - 1))];
        return result;
    }

  private:
    static std::uint64_t chosen_seed() {
        const char* given = std::getenv("HERALD_SEED");
        return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    }

    std::mt19937_64 engine_;
};

}  // namespace herald::test
