// Topic names and patterns: what is allowed and what matches what. One rule for SQL and the
// notifier. Pure functions on valid UTF-8; no allocation, no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace herald {

constexpr std::size_t kMaxTopicCharacters = 200;

enum class TopicFault : std::uint8_t { kNone, kEmpty, kTooLong, kCharacter, kReserved };

// `at` is the byte offset of the offending character for kCharacter.
struct TopicCheck {
    TopicFault fault = TopicFault::kNone;
    std::size_t at = 0;

    bool ok() const { return fault == TopicFault::kNone; }
};

// Number of code points in valid UTF-8.
constexpr std::size_t count_characters(std::string_view text) {
    std::size_t count = 0;
    for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return count;
}

// Length in bytes of the character that begins at text[at].
constexpr std::size_t character_length(std::string_view text, std::size_t at) {
    std::size_t end = at + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    return end - at;
}

// Whether the text has a wildcard: then it is a pattern, else a topic name.
constexpr bool is_pattern(std::string_view text) {
    return text.find_first_of("*?") != std::string_view::npos;
}

// A name that messages can be sent to: 1 to 200 characters, no control characters, none of
// * ? [ ] \ and not reserved (`herald`, `herald:…`).
TopicCheck check_topic(std::string_view name);

// A topic name or pattern to read from: as above, with * and ? allowed. A reserved name is
// allowed: nothing is ever found there.
TopicCheck check_pattern(std::string_view pattern);

// Whether `pattern` matches the whole of `topic`: * is any run of characters (`:` included, may
// be empty), ? is one character, anything else is itself (the rule of Redis PSUBSCRIBE without
// classes). O(pattern × topic) at worst: on a mismatch only the last * is extended.
bool topic_matches(std::string_view pattern, std::string_view topic);

}  // namespace herald
