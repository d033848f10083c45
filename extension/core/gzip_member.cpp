#include "gzip_member.h"

#include <algorithm>

namespace herald {

namespace {

// How the data end: the lengths in the empty block that a flush writes.
constexpr std::string_view kFlushed{"\0\0\xff\xff", 4};
// The empty block of fixed codes that is the last one.
constexpr std::string_view kLastBlock{"\3\0", 2};

void write_number(std::uint32_t number, char* out) {
    for (unsigned i = 0; i < 4; ++i) out[i] = static_cast<char>(number >> (8U * i));
}

std::uint32_t read_number(const char* in) {
    std::uint32_t number = 0;
    for (unsigned i = 0; i < 4; ++i)
        number |= std::uint32_t{static_cast<std::uint8_t>(in[i])} << (8U * i);
    return number;
}

}  // namespace

std::optional<GzipMember> read_gzip_member(std::string_view member) {
    if (!member.starts_with(kGzipHead) || member.size() < kGzipHead.size() + kGzipEnd)
        return std::nullopt;
    const std::string_view end = member.substr(member.size() - kGzipEnd);
    member.remove_prefix(kGzipHead.size());
    member.remove_suffix(kGzipEnd);
    if (!member.ends_with(kFlushed) || !end.starts_with(kLastBlock)) return std::nullopt;
    const char* numbers = end.data() + kLastBlock.size();
    return GzipMember{
        .data = member, .crc = read_number(numbers), .bytes = read_number(numbers + 4)};
}

std::array<char, kGzipEnd> gzip_end(std::uint32_t crc, std::uint32_t bytes) {
    std::array<char, kGzipEnd> end{};
    char* numbers = std::copy(kLastBlock.begin(), kLastBlock.end(), end.data());
    write_number(crc, numbers);
    write_number(bytes, numbers + 4);
    return end;
}

}  // namespace herald
