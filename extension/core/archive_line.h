// Reading the lines of an archive: JSON objects whose members are taken as the pieces of text that
// they are, without making a tree of them. (They are written by write_envelope and
// write_json_string.) Pure functions on text from outside: whatever it is, nothing is read beyond
// its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace herald {

// The members of a JSON object, one after the other. Finds where each value ends and no more:
// whether a nested value is valid JSON is the caller's question.
class JsonMembers {
  public:
    explicit JsonMembers(std::string_view object);

    // Goes to the next member; false at the end, or where the text is no object.
    bool next();
    // As written: a name without its quotes, a string value with them.
    std::string_view name() const { return name_; }
    std::string_view value() const { return value_; }
    // After next() gave false: whether this was an object and nothing more.
    bool complete() const { return state_ == State::kEnd; }
    // The byte that was looked at last.
    std::size_t at() const { return at_; }

  private:
    enum class State : std::uint8_t { kFirst, kMember, kEnd, kDamaged };

    bool fail();
    void skip_space();
    bool skip(char expected);
    // From a quote to the one that ends the string.
    bool skip_string();
    bool skip_value();

    std::string_view text_;
    std::size_t at_ = 0;
    std::string_view name_;
    std::string_view value_;
    State state_ = State::kFirst;
};

// Writes the character as UTF-8; gives the number of bytes.
std::size_t encode_utf8(std::uint32_t code, char (&bytes)[4]);

// The four hexadecimal digits at the beginning of the text.
std::optional<std::uint32_t> hex_digits(std::string_view text);

// Appends the text of a JSON string, given with its quotes, to the sink (see write_json_string).
// False if it is none, or has the character U+0000, which no text of PostgreSQL's can have.
template <typename Sink>
bool read_json_string(Sink& sink, std::string_view quoted) {
    if (quoted.size() < 2 || quoted.front() != '"' || quoted.back() != '"') return false;
    const std::string_view text = quoted.substr(1, quoted.size() - 2);
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t plain = at;
        while (at < text.size() && text[at] != '\\' && text[at] != '"' &&
               static_cast<unsigned char>(text[at]) >= 0x20)
            ++at;
        if (at > plain) sink.append(text.substr(plain, at - plain));
        if (at == text.size()) break;
        if (text[at] != '\\' || at + 1 == text.size()) return false;
        const char kind = text[at + 1];
        at += 2;
        constexpr std::string_view kShort = "\"\\/bfnrt";
        constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
        if (const std::size_t which = kShort.find(kind); which != std::string_view::npos) {
            sink.append(kMeant.substr(which, 1));
            continue;
        }
        if (kind != 'u') return false;
        std::optional<std::uint32_t> code = hex_digits(text.substr(at));
        if (!code || *code == 0) return false;
        at += 4;
        if (*code >= 0xD800 && *code < 0xE000) {
            if (*code >= 0xDC00 || text.substr(at, 2) != "\\u") return false;
            const std::optional<std::uint32_t> low = hex_digits(text.substr(at + 2));
            if (!low || *low < 0xDC00 || *low >= 0xE000) return false;
            at += 6;
            code = 0x10000 + ((*code - 0xD800) << 10U) + (*low - 0xDC00);
        }
        char bytes[4];
        sink.append(std::string_view(bytes, encode_utf8(*code, bytes)));
    }
    return true;
}

// The inverse of integer_text.
std::optional<std::int64_t> read_integer(std::string_view text);

// The inverse of timestamp_text. Day number from civil date: Hinnant, "chrono-Compatible Low-Level
// Date Algorithms".
std::optional<std::int64_t> read_timestamp(std::string_view text);

}  // namespace herald
