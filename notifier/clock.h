// The wall clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace herald {

// Microseconds since 1970.
inline std::int64_t unix_microseconds() {
    using namespace std::chrono;
    return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace herald
