// Topics and patterns: pattern, line end, topic. Matching agrees with the plain table of all
// prefixes, and a name always matches itself.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/topic.h"
#include "require.h"
#include "utf8.h"

using namespace herald;

namespace {

// matches[t]: whether the pattern so far matches the first t bytes of the topic.
bool by_table(std::string_view pattern, std::string_view topic) {
    std::vector<bool> matches(topic.size() + 1, false);
    matches[0] = true;
    for (const char c : pattern) {
        std::vector<bool> next(topic.size() + 1, false);
        next[0] = c == '*' && matches[0];
        std::size_t begin = 0;  // of the character that ends at t
        for (std::size_t t = 1; t <= topic.size(); ++t) {
            const bool whole =
                t == topic.size() || (static_cast<unsigned char>(topic[t]) & 0xC0) != 0x80;
            if (c == '*') {
                next[t] = matches[t] || next[t - 1];
            } else if (c == '?') {
                next[t] = whole && matches[begin];
            } else {
                next[t] = c == topic[t - 1] && matches[t - 1];
            }
            if (whole) begin = t;
        }
        matches = next;
    }
    return matches[topic.size()];
}

bool valid_utf8(std::string_view text) {
    Utf8Check check;
    return check.feed(text) && check.complete();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return 0;
    const std::string_view pattern = text.substr(0, end);
    const std::string_view topic = text.substr(end + 1);
    if (!valid_utf8(pattern) || !valid_utf8(topic)) return 0;

    require(topic_matches(pattern, topic) == by_table(pattern, topic));
    require(topic_matches("*", topic));
    if (check_topic(topic).ok()) {
        require(check_pattern(topic).ok());
        require(topic_matches(topic, topic));
    }
    return 0;
}
