// UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 12 bits that carry the
// fraction of the millisecond (method 3 of section 6.2), 62 random bits. Sorted by time within
// about a quarter of a microsecond.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace herald {

using UuidBytes = std::array<std::uint8_t, 16>;

constexpr std::size_t kUuidTextLength = 36;

// `unix_us`: microseconds since 1970, not negative; `random`: 64 random bits.
UuidBytes make_uuid_v7(std::int64_t unix_us, std::uint64_t random);

// The time a version 7 UUID was made, in Unix milliseconds.
std::int64_t uuid_v7_milliseconds(const UuidBytes& uuid);

// 36 characters in lower case, no terminating zero.
std::array<char, kUuidTextLength> uuid_text(const UuidBytes& uuid);

// Whether the text is a UUID in the 8-4-4-4-12 form, either case.
bool is_uuid_text(std::string_view text);

}  // namespace herald
