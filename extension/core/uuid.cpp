#include "uuid.h"

namespace herald {

namespace {

constexpr bool is_dash_place(std::size_t at) {
    return at == 8 || at == 13 || at == 18 || at == 23;
}

constexpr bool is_hex_digit(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

}  // namespace

UuidBytes make_uuid_v7(std::int64_t unix_us, std::uint64_t random) {
    const auto milliseconds = static_cast<std::uint64_t>(unix_us / 1000);
    const auto fraction = static_cast<std::uint64_t>(unix_us % 1000) * 4096 / 1000;
    const std::uint64_t high = (milliseconds << 16U) | 0x7000U | fraction;
    const std::uint64_t low = (random >> 2U) | (std::uint64_t{2} << 62U);
    UuidBytes bytes{};
    for (unsigned i = 0; i < 8; ++i) {
        bytes[i] = static_cast<std::uint8_t>(high >> (56U - 8U * i));
        bytes[i + 8] = static_cast<std::uint8_t>(low >> (56U - 8U * i));
    }
    return bytes;
}

std::int64_t uuid_v7_milliseconds(const UuidBytes& uuid) {
    std::int64_t milliseconds = 0;
    for (std::size_t i = 0; i < 6; ++i) milliseconds = milliseconds * 256 + uuid[i];
    return milliseconds;
}

std::array<char, kUuidTextLength> uuid_text(const UuidBytes& uuid) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::array<char, kUuidTextLength> text{};
    std::size_t out = 0;
    for (const std::uint8_t byte : uuid) {
        if (is_dash_place(out)) text[out++] = '-';
        text[out++] = kHex[byte >> 4U];
        text[out++] = kHex[byte & 15U];
    }
    return text;
}

bool is_uuid_text(std::string_view text) {
    if (text.size() != kUuidTextLength) return false;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (is_dash_place(at) ? text[at] != '-' : !is_hex_digit(text[at])) return false;
    }
    return true;
}

}  // namespace herald
