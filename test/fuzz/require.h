// What must hold for every input: else the fuzzer has found something.
#pragma once

#include <cstdlib>

inline void require(bool holds) {
    if (!holds) std::abort();
}
