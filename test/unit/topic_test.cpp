#include "core/topic.h"

#include <gtest/gtest.h>

#include <string>

#include "random.h"

namespace herald {
namespace {

// The definition, word for word.
bool naive(std::string_view pattern, std::string_view topic) {
    if (pattern.empty()) return topic.empty();
    if (pattern[0] == '*') {
        for (std::size_t skip = 0; skip <= topic.size(); ++skip)
            if (naive(pattern.substr(1), topic.substr(skip))) return true;
        return false;
    }
    if (topic.empty()) return false;
    if (pattern[0] == '?') {
        std::size_t end = 1;
        while (end < topic.size() && (static_cast<unsigned char>(topic[end]) & 0xC0) == 0x80) ++end;
        return naive(pattern.substr(1), topic.substr(end));
    }
    return pattern[0] == topic[0] && naive(pattern.substr(1), topic.substr(1));
}

TEST(Topic, Examples) {
    EXPECT_TRUE(topic_matches("agent:*", "agent:42:inbox"));
    EXPECT_TRUE(topic_matches("agent:*:inbox", "agent:42:inbox"));
    EXPECT_TRUE(topic_matches("*", "anything at all"));
    EXPECT_TRUE(topic_matches("a?c", "a€c"));
    EXPECT_TRUE(topic_matches("**a**", "xxax"));
    EXPECT_FALSE(topic_matches("agent:*", "agent"));
    EXPECT_FALSE(topic_matches("a?c", "ac"));
    EXPECT_FALSE(topic_matches("Agent", "agent"));
    EXPECT_FALSE(topic_matches("a", ""));
}

TEST(Topic, MatchesLikeTheNaiveMatcher) {
    test::Random random("topic patterns");
    for (int run = 0; run < 50'000; ++run) {
        const std::string pattern = random.text("ab:*?", 0, 8);
        const std::string topic = random.text("ab:", 0, 10);
        ASSERT_EQ(topic_matches(pattern, topic), naive(pattern, topic)) << pattern << " " << topic;
    }
}

TEST(Topic, MatchesWholeCharacters) {
    test::Random random("topic characters");
    const std::string letters[] = {"a", "ü", "€", "𝄞"};
    for (int run = 0; run < 20'000; ++run) {
        std::string pattern;
        std::string topic;
        for (auto i = random.number(0, 5); i > 0; --i)
            pattern += random.chance(0.4)   ? "?"
                       : random.chance(0.3) ? "*"
                                            : letters[random.number(0, 3)];
        for (auto i = random.number(0, 6); i > 0; --i) topic += letters[random.number(0, 3)];
        ASSERT_EQ(topic_matches(pattern, topic), naive(pattern, topic)) << pattern << " " << topic;
    }
}

TEST(Topic, HostilePatternIsNotExponential) {
    std::string pattern;
    for (int i = 0; i < 66; ++i) pattern += "*a";
    EXPECT_FALSE(topic_matches(pattern + "b", std::string(200, 'a')));
}

TEST(Topic, NamesAndPatterns) {
    const auto long_name = [](int characters) {
        std::string name;
        for (int i = 0; i < characters; ++i) name += "ü";
        return name;
    };
    EXPECT_TRUE(check_topic(long_name(200)).ok());
    EXPECT_EQ(check_topic(long_name(201)).fault, TopicFault::kTooLong);
    EXPECT_EQ(check_topic("").fault, TopicFault::kEmpty);
    EXPECT_EQ(check_topic("herald").fault, TopicFault::kReserved);
    EXPECT_EQ(check_topic("herald:x").fault, TopicFault::kReserved);
    EXPECT_TRUE(check_topic("heralds").ok());
    EXPECT_TRUE(check_topic("two words").ok());
    for (const char* bad : {"a*", "a?", "a[", "a]", "a\\", "a\n", "a\x7F"}) {
        const TopicCheck check = check_topic(bad);
        EXPECT_EQ(check.fault, TopicFault::kCharacter) << bad;
        EXPECT_EQ(check.at, 1U) << bad;
    }
    EXPECT_TRUE(check_pattern("a*?").ok());
    EXPECT_EQ(check_pattern("a[b]").fault, TopicFault::kCharacter);
    EXPECT_TRUE(is_pattern("a*"));
    EXPECT_TRUE(is_pattern("a?"));
    EXPECT_FALSE(is_pattern("a:b"));
}

}  // namespace
}  // namespace herald
