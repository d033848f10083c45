#include "topic.h"

namespace herald {

namespace {

TopicCheck check_text(std::string_view text, std::string_view forbidden) {
    if (text.empty()) return {TopicFault::kEmpty};
    for (std::size_t at = 0; at < text.size(); ++at) {
        const auto byte = static_cast<unsigned char>(text[at]);
        if (byte < 0x20 || byte == 0x7F || forbidden.find(text[at]) != std::string_view::npos)
            return {TopicFault::kCharacter, at};
    }
    if (text.size() > kMaxTopicCharacters && count_characters(text) > kMaxTopicCharacters)
        return {TopicFault::kTooLong};
    return {};
}

}  // namespace

TopicCheck check_topic(std::string_view name) {
    if (const TopicCheck check = check_text(name, "*?[]\\"); !check.ok()) return check;
    if (name == "herald" || name.starts_with("herald:")) return {TopicFault::kReserved};
    return {};
}

TopicCheck check_pattern(std::string_view pattern) {
    return check_text(pattern, "[]\\");
}

bool topic_matches(std::string_view pattern, std::string_view topic) {
    constexpr std::size_t kNoStar = std::string_view::npos;
    std::size_t p = 0;
    std::size_t t = 0;
    std::size_t star = kNoStar;  // where the last * stands in the pattern
    std::size_t star_end = 0;    // the topic's first byte that this * doesn't cover
    while (t < topic.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            star_end = t;
        } else if (p < pattern.size() && pattern[p] == '?') {
            ++p;
            t += character_length(topic, t);
        } else if (p < pattern.size() && pattern[p] == topic[t]) {
            ++p;
            ++t;
        } else if (star != kNoStar) {
            p = star + 1;
            star_end += character_length(topic, star_end);
            t = star_end;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

}  // namespace herald
