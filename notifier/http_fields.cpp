#include "http_fields.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace herald {

namespace {

constexpr std::size_t kDigestBytes = 32;
constexpr std::uint64_t kMaxInteger = 999'999'999'999'999;
constexpr std::size_t kMaxMediaType = 200;
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

// Digits only, no sign; a number too large for 64 bits is as large as any.
std::optional<std::uint64_t> digits(std::string_view text) {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
        return std::nullopt;
    std::uint64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    return parsed.ec == std::errc{} ? value : UINT64_MAX;
}

// Calls visit(member) for each member of a comma-separated field, until it returns true; commas in
// quotes do not separate.
template <typename Visit>
bool any_member(std::string_view field, Visit visit) {
    std::size_t begin = 0;
    bool quoted = false;
    for (std::size_t i = 0; i <= field.size(); ++i) {
        if (i < field.size() && field[i] == '"') quoted = !quoted;
        if (i < field.size() && (quoted || field[i] != ',')) continue;
        const std::string_view member = trim(field.substr(begin, i - begin));
        if (!member.empty() && visit(member)) return true;
        begin = i + 1;
    }
    return false;
}

template <typename Visit>
bool any_member(const Request& request, std::string_view name, Visit visit) {
    for (const auto& [key, value] : request.headers)
        if (key == name && any_member(value, visit)) return true;
    return false;
}

bool is_zero_weight(std::string_view weight) {
    return weight == "0" ||
           (weight.starts_with("0.") && weight.find_first_not_of('0', 2) == std::string_view::npos);
}

std::string to_base64(std::string_view bytes) {
    std::string result;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char byte : bytes) {
        bits = bits << 8 | static_cast<unsigned char>(byte);
        for (count += 8; count >= 6; count -= 6) result += kBase64[bits >> (count - 6) & 63];
    }
    if (count > 0) result += kBase64[bits << (6 - count) & 63];
    while (result.size() % 4 != 0) result += '=';
    return result;
}

std::optional<std::string> from_base64(std::string_view text) {
    if (text.size() % 4 != 0) return std::nullopt;
    for (int i = 0; i < 2 && text.ends_with('='); ++i) text.remove_suffix(1);
    std::string result;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : text) {
        const std::size_t value = kBase64.find(c);
        if (value == std::string_view::npos) return std::nullopt;
        bits = bits << 6 | static_cast<std::uint32_t>(value);
        count += 6;
        if (count < 8) continue;
        count -= 8;
        result += static_cast<char>(bits >> count);
    }
    return result;
}

bool is_token_character(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), is_token_character);
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

RangeChoice choose_range(std::string_view field, std::uint64_t size) {
    using Kind = RangeChoice::Kind;
    const std::size_t equals = field.find('=');
    if (equals == std::string_view::npos || !equal_ignoring_case(field.substr(0, equals), "bytes"))
        return {};
    const std::string_view range = trim(field.substr(equals + 1));
    const std::size_t dash = range.find('-');
    if (dash == std::string_view::npos) return {};
    const auto first = digits(range.substr(0, dash));
    const auto last = digits(range.substr(dash + 1));
    if (!first) {
        if (dash > 0 || !last) return {};
        const std::uint64_t length = std::min(*last, size);
        if (length == 0) return {.kind = Kind::kUnsatisfiable};
        return {.kind = Kind::kPart, .from = size - length, .length = length};
    }
    if (!last && dash + 1 < range.size()) return {};
    if (last && *last < *first) return {};
    if (*first >= size) return {.kind = Kind::kUnsatisfiable};
    const std::uint64_t end = last && *last < size ? *last + 1 : size;
    return {.kind = Kind::kPart, .from = *first, .length = end - *first};
}

bool lists_etag(const Request& request, std::string_view lower_case_name, std::string_view etag,
                bool weak) {
    return any_member(request, lower_case_name, [&](std::string_view member) {
        if (member == "*") return true;
        if (weak && member.starts_with("W/")) member.remove_prefix(2);
        return member == etag;
    });
}

bool accepts_coding(const Request& request, std::string_view coding) {
    return any_member(request, "accept-encoding", [&](std::string_view member) {
        const std::size_t semicolon = member.find(';');
        if (!equal_ignoring_case(trim(member.substr(0, semicolon)), coding)) return false;
        if (semicolon == std::string_view::npos) return true;
        const std::string_view weight = trim(member.substr(semicolon + 1));
        return (weight.starts_with("q=") || weight.starts_with("Q=")) &&
               !is_zero_weight(weight.substr(2));
    });
}

std::optional<bool> structured_boolean(std::string_view field) {
    const std::string_view value = trim(field);
    if (value == "?1") return true;
    if (value == "?0") return false;
    return std::nullopt;
}

std::optional<std::uint64_t> structured_integer(std::string_view field) {
    const auto value = digits(trim(field));
    return value && *value <= kMaxInteger ? value : std::nullopt;
}

DigestField read_digest(const Request& request, std::string_view lower_case_name) {
    DigestField result{.present = request.count(lower_case_name) > 0, .sha256 = {}};
    any_member(request, lower_case_name, [&](std::string_view member) {
        constexpr std::string_view kName = "sha-256=:";
        if (!member.starts_with(kName)) return false;
        member.remove_prefix(kName.size());
        if (!member.ends_with(':')) return true;
        result.sha256 = from_base64(member.substr(0, member.size() - 1));
        if (result.sha256 && result.sha256->size() != kDigestBytes) result.sha256.reset();
        return true;
    });
    return result;
}

std::string digest_field(std::string_view sha256) {
    return "sha-256=:" + to_base64(sha256) + ":";
}

bool is_media_type(std::string_view text) {
    if (text.size() > kMaxMediaType) return false;
    const std::size_t semicolon = text.find(';');
    const std::string_view type = trim(text.substr(0, semicolon));
    const std::size_t slash = type.find('/');
    if (slash == std::string_view::npos || !is_token(type.substr(0, slash)) ||
        !is_token(type.substr(slash + 1)))
        return false;
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= ' ' && c <= '~') || c == '\t'; });
}

std::string hex_of(std::string_view bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string result;
    for (const char byte : bytes) {
        result += kDigits[static_cast<unsigned char>(byte) >> 4];
        result += kDigits[static_cast<unsigned char>(byte) & 15];
    }
    return result;
}

std::optional<std::string> bytes_of_hex(std::string_view hex) {
    if (hex.size() % 2 != 0) return std::nullopt;
    std::string result;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        const int high = hex_value(hex[i]);
        const int low = hex_value(hex[i + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        result += static_cast<char>(high * 16 + low);
    }
    return result;
}

}  // namespace herald
