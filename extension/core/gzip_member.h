// The form of the gzip members (RFC 1952) that chunks of payloads are. The data of each end with a
// flush: at a byte, and in a block that is not the last one. Then comes a last block, which is
// empty. So the data of several, one after the other, are the data of one (notifier/gzip_join.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace herald {

// No name, no time, no system: all begin with the same bytes.
constexpr std::string_view kGzipHead{"\x1f\x8b\x08\0\0\0\0\0\0\xff", 10};
// The last block, and what is known of the content.
constexpr std::size_t kGzipEnd = 10;

struct GzipMember {
    std::string_view data;    // up to the last block
    std::uint32_t crc = 0;    // CRC-32 of the content
    std::uint32_t bytes = 0;  // of the content, modulo 2^32
};

// The parts of a member; nullopt if it has another form.
std::optional<GzipMember> read_gzip_member(std::string_view member);

// What comes behind the data.
std::array<char, kGzipEnd> gzip_end(std::uint32_t crc, std::uint32_t bytes);

}  // namespace herald
