#include "hub.h"

#include <algorithm>

#include "core/topic.h"

namespace herald {

void Hub::subscribe(Subscriber& subscriber, std::string_view topics, Position cursor) {
    ++stats_.subscriptions;
    if (is_pattern(topics)) {
        patterns_[std::string(topics)].push_back({&subscriber, cursor});
        stats_.patterns = patterns_.size();
        ++generation_;
        return;
    }
    auto found = topics_.find(topics);
    if (found == topics_.end()) found = topics_.emplace(topics, Entries{}).first;
    found->second.push_back({&subscriber, cursor});
    stats_.topics = topics_.size();
    forget_topic(topics);
}

void Hub::unsubscribe(Subscriber& subscriber, std::string_view topics) {
    if (is_pattern(topics)) {
        const auto found = patterns_.find(topics);
        if (found == patterns_.end() || !remove(found->second, subscriber)) return;
        if (found->second.empty()) patterns_.erase(found);
        stats_.patterns = patterns_.size();
        ++generation_;
    } else {
        const auto found = topics_.find(topics);
        if (found == topics_.end() || !remove(found->second, subscriber)) return;
        if (found->second.empty()) topics_.erase(found);
        stats_.topics = topics_.size();
        forget_topic(topics);
    }
    --stats_.subscriptions;
}

bool Hub::remove(Entries& entries, const Subscriber& subscriber) {
    const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) {
        return entry.subscriber == &subscriber;
    });
    if (found == entries.end()) return false;
    *found = entries.back();
    entries.pop_back();
    return true;
}

void Hub::forget_topic(std::string_view topic) {
    const auto found = resolved_.find(topic);
    if (found == resolved_.end()) return;
    resolved_entries_ -= found->second.entries.size();
    resolved_.erase(found);
}

Hub::Resolved Hub::resolve(std::string_view topic, const Entries& own) const {
    Resolved result{.generation = generation_, .merged = false, .entries = {}};
    for (const auto& [pattern, entries] : patterns_) {
        if (!topic_matches(pattern, topic)) continue;
        result.merged = true;
        result.entries.insert(result.entries.end(), entries.begin(), entries.end());
    }
    if (!result.merged) return result;
    Entries& all = result.entries;
    all.insert(all.end(), own.begin(), own.end());
    // One entry a subscriber, with its lowest cursor: a message above that one is above the cursor
    // of at least one matching subscription.
    std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) {
        if (a.subscriber != b.subscriber) return std::less<>{}(a.subscriber, b.subscriber);
        return a.cursor < b.cursor;
    });
    all.erase(
        std::unique(all.begin(), all.end(),
                    [](const Entry& a, const Entry& b) { return a.subscriber == b.subscriber; }),
        all.end());
    all.shrink_to_fit();
    return result;
}

const Hub::Entries& Hub::subscribers_of(std::string_view topic) {
    static const Entries kNobody;
    const auto own = topics_.find(topic);
    const Entries& own_entries = own == topics_.end() ? kNobody : own->second;
    if (patterns_.empty()) return own_entries;

    auto found = resolved_.find(topic);
    if (found == resolved_.end() || found->second.generation != generation_) {
        forget_topic(topic);
        Resolved fresh = resolve(topic, own_entries);
        if (resolved_.size() >= kMaxCachedTopics ||
            resolved_entries_ + fresh.entries.size() > kMaxCachedEntries) {
            resolved_.clear();
            resolved_entries_ = 0;
        }
        resolved_entries_ += fresh.entries.size();
        found = resolved_.emplace(topic, std::move(fresh)).first;
    }
    return found->second.merged ? found->second.entries : own_entries;
}

void Hub::publish(const Row& row) {
    position_ = row.pos;
    ++stats_.published;
    Frame frame;
    const auto make_frame = [&] {
        if (!frame) frame = Frame::text(row.envelope);
    };
    for (const Entry& entry : subscribers_of(row.topic)) {
        if (entry.cursor >= row.pos) continue;
        make_frame();
        ++stats_.deliveries;
        entry.subscriber->hear(row.pos, frame);
    }
    if (ring_.has_room_for(row.envelope.size())) {
        make_frame();
        ring_.add(row.pos, row.topic, row.expires_us, std::move(frame));
    } else {
        ring_.clear(row.pos);
    }
}

void Hub::lose(std::span<const Lost> lost) {
    const auto tell = [&](const std::string& topics, const Entries& entries) {
        const Lost* last = nullptr;
        for (const Lost& one : lost) {
            const bool concerned = one.topic == "*" || topic_matches(topics, one.topic);
            if (concerned && (last == nullptr || one.to > last->to)) last = &one;
        }
        if (last != nullptr) tell_missed(topics, entries, *last);
    };
    for (const auto& [topic, entries] : topics_) tell(topic, entries);
    for (const auto& [pattern, entries] : patterns_) tell(pattern, entries);
}

void Hub::tell_missed(std::string_view topics, const Entries& entries, const Lost& lost) const {
    for (const Entry& entry : entries) {
        const Position from = std::max(entry.cursor, position_);
        if (from < lost.to) entry.subscriber->miss(topics, from, lost.to, lost.why);
    }
}

void Hub::start(Position pos) {
    started_ = true;
    position_ = pos;
    ring_.clear(pos);
}

void Hub::advance(Position upto) {
    position_ = std::max(position_, upto);
}

void Hub::forget() {
    ring_.clear(position_);
}

void Hub::reset(Position pos) {
    position_ = pos;
    ring_.clear(pos);
}

}  // namespace herald
