#include "archive_line.h"

#include <charconv>

namespace herald {

JsonMembers::JsonMembers(std::string_view object) : text_(object) {}

bool JsonMembers::fail() {
    state_ = State::kDamaged;
    return false;
}

void JsonMembers::skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r'))
        ++at_;
}

bool JsonMembers::skip(char expected) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != expected) return false;
    ++at_;
    skip_space();
    return true;
}

bool JsonMembers::skip_string() {
    for (++at_; at_ < text_.size(); ++at_) {
        if (text_[at_] == '\\') {
            ++at_;
        } else if (text_[at_] == '"') {
            ++at_;
            return true;
        }
    }
    at_ = text_.size();
    return false;
}

bool JsonMembers::skip_value() {
    const std::size_t begin = at_;
    std::size_t depth = 0;
    do {
        if (at_ == text_.size()) return false;
        const char c = text_[at_];
        if (c == '"') {
            if (!skip_string()) return false;
        } else if (c == '{' || c == '[') {
            ++depth;
            ++at_;
        } else if (depth > 0) {
            if (c == '}' || c == ']') --depth;
            ++at_;
        } else {
            const std::size_t end = text_.find_first_of("{}[],:\" \t\r", at_);
            at_ = end == std::string_view::npos ? text_.size() : end;
        }
    } while (depth > 0);
    value_ = text_.substr(begin, at_ - begin);
    return at_ > begin;
}

bool JsonMembers::next() {
    if (state_ == State::kEnd || state_ == State::kDamaged) return false;
    if (state_ == State::kFirst && !skip('{')) return fail();
    if (skip('}')) {
        if (at_ != text_.size()) return fail();
        state_ = State::kEnd;
        return false;
    }
    if (state_ == State::kMember && !skip(',')) return fail();
    state_ = State::kMember;
    const std::size_t quote = at_;
    if (at_ == text_.size() || text_[at_] != '"' || !skip_string()) return fail();
    name_ = text_.substr(quote + 1, at_ - quote - 2);
    return (skip(':') && skip_value()) || fail();
}

std::size_t encode_utf8(std::uint32_t code, char (&bytes)[4]) {
    const auto rest = [&](unsigned shift) {
        return static_cast<char>(0x80U | ((code >> shift) & 0x3FU));
    };
    if (code < 0x80) {
        bytes[0] = static_cast<char>(code);
        return 1;
    }
    if (code < 0x800) {
        bytes[0] = static_cast<char>(0xC0U | (code >> 6U));
        bytes[1] = rest(0);
        return 2;
    }
    if (code < 0x10000) {
        bytes[0] = static_cast<char>(0xE0U | (code >> 12U));
        bytes[1] = rest(6);
        bytes[2] = rest(0);
        return 3;
    }
    bytes[0] = static_cast<char>(0xF0U | (code >> 18U));
    bytes[1] = rest(12);
    bytes[2] = rest(6);
    bytes[3] = rest(0);
    return 4;
}

std::optional<std::uint32_t> hex_digits(std::string_view text) {
    std::uint32_t value = 0;
    if (text.size() < 4) return std::nullopt;
    const char* end = text.data() + 4;
    const auto read = std::from_chars(text.data(), end, value, 16);
    if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return value;
}

std::optional<std::int64_t> read_integer(std::string_view text) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, value);
    if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return value;
}

std::optional<std::int64_t> read_timestamp(std::string_view text) {
    constexpr std::string_view kAfterYear = "-00-00T00:00:00.000000Z";
    if (text.size() < kAfterYear.size() + 4 || text.size() > kAfterYear.size() + 7)
        return std::nullopt;
    const std::string_view rest = text.substr(text.size() - kAfterYear.size());
    for (std::size_t i = 0; i < rest.size(); ++i) {
        const bool digit = rest[i] >= '0' && rest[i] <= '9';
        if (kAfterYear[i] == '0' ? !digit : rest[i] != kAfterYear[i]) return std::nullopt;
    }
    const auto number = [&](std::size_t at, std::size_t digits) {
        return read_integer(rest.substr(at, digits)).value_or(0);
    };
    const std::optional<std::int64_t> written =
        read_integer(text.substr(0, text.size() - rest.size()));
    const std::int64_t month = number(1, 2);
    const std::int64_t day = number(4, 2);
    if (!written || month < 1 || month > 12 || day < 1 || day > 31 || number(7, 2) > 23 ||
        number(10, 2) > 59 || number(13, 2) > 59)
        return std::nullopt;
    const std::int64_t year = *written - (month <= 2 ? 1 : 0);
    const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    const std::int64_t year_of_era = year - era * 400;
    const std::int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    const std::int64_t day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    const std::int64_t days = era * 146097 + day_of_era - 719468;
    const std::int64_t seconds =
        days * 86'400 + number(7, 2) * 3'600 + number(10, 2) * 60 + number(13, 2);
    return seconds * 1'000'000 + number(16, 6);
}

}  // namespace herald
