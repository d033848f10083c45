// How long to wait before the next attempt: exponential with full jitter, so that many clients
// that lost the same server do not come back in step.
// Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

namespace herald {

class Backoff {
  public:
    // Milliseconds, 0 < base_ms <= cap_ms.
    Backoff(std::int64_t base_ms, std::int64_t cap_ms, std::uint64_t seed = std::random_device{}())
        : base_ms_(base_ms), cap_ms_(cap_ms), ceiling_ms_(base_ms), random_(seed) {}

    // A random wait from 0 to the current ceiling; the ceiling then doubles up to the cap.
    std::int64_t next() {
        std::uniform_int_distribution<std::int64_t> wait(0, ceiling_ms_);
        const std::int64_t result = wait(random_);
        ceiling_ms_ = ceiling_ms_ > cap_ms_ / 2 ? cap_ms_ : ceiling_ms_ * 2;
        return result;
    }
    void reset() { ceiling_ms_ = base_ms_; }
    std::int64_t ceiling() const { return ceiling_ms_; }

  private:
    std::int64_t base_ms_;
    std::int64_t cap_ms_;
    std::int64_t ceiling_ms_;
    std::mt19937_64 random_;
};

}  // namespace herald
