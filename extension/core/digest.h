// SHA-256 of a content that comes in parts, and not all of them to the same process: between two
// parts the computation is a plain value that can be stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace herald {

class RunningDigest {
  public:
    static constexpr std::size_t kStateBytes = 112;
    static constexpr std::size_t kDigestBytes = 32;

    // Of nothing yet.
    static RunningDigest begin();
    // Goes on from what state() gave; false if this is no such value.
    static bool resume(std::string_view state, RunningDigest* digest);

    void add(std::string_view part);
    // Of all parts so far.
    std::array<std::uint8_t, kDigestBytes> digest() const;
    std::string_view state() const;

  private:
    alignas(8) std::array<unsigned char, kStateBytes> state_;  // libcrypto's SHA256_CTX
};

}  // namespace herald
