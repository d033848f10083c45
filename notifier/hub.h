// Hub: who hears what. Knows no sockets and no SQL.
//
// A subscription is (subscriber, topic or pattern, cursor) and is live: it hears every message
// above its cursor that the feed brings. What lies below the cursor its owner has read before it
// subscribed here (see replay.h).
//
// Invariants
// - A message is handed to a subscriber once, however many of its subscriptions match: if at least
//   one of them has its cursor below the message.
// - position() never falls except by reset(); the ring holds everything in (ring().floor(),
//   position()].
// - Per topic, the matching patterns are looked up once and remembered. A subscription to a plain
//   topic forgets that topic only; one to a pattern makes all of it stale (a generation number).
//   Bounded: kMaxCachedTopics topics, kMaxCachedEntries subscribers; at a bound all is forgotten.
// Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bus.h"
#include "frame.h"
#include "ring.h"

namespace herald {

class Subscriber {
  public:
    virtual ~Subscriber() = default;
    // A message. Must not change subscriptions of the hub before it returns.
    virtual void hear(Position pos, const Frame& frame) = 0;
    // What the subscription to `topics` would have heard in (from, to] is gone, at least in part.
    virtual void miss(std::string_view topics, Position from, Position to,
                      std::string_view why) = 0;
};

struct HubStats {
    std::size_t subscriptions = 0;
    std::size_t topics = 0;    // plain topics that somebody hears
    std::size_t patterns = 0;  // distinct ones
    std::uint64_t published = 0;
    std::uint64_t deliveries = 0;
};

class Hub {
  public:
    static constexpr std::size_t kMaxCachedTopics = 65536;
    static constexpr std::size_t kMaxCachedEntries = 1 << 20;

    // ring_bytes 0: no ring.
    explicit Hub(std::size_t ring_bytes) : ring_(ring_bytes) {}

    // `topics`: valid by check_pattern; not subscribed by this subscriber already.
    void subscribe(Subscriber& subscriber, std::string_view topics, Position cursor);
    // Does nothing if there is no such subscription.
    void unsubscribe(Subscriber& subscriber, std::string_view topics);

    // Whether the feed has ever said where it stands; before that there is nothing to subscribe to.
    bool started() const { return started_; }
    Position position() const { return position_; }
    const Ring& ring() const { return ring_; }
    const HubStats& stats() const { return stats_; }

    // What the feed brings (see FeedSink): `start` and `reset` set the position, `publish` takes
    // the next message (pos above position()), `advance` says that there is nothing up to `upto`.
    void start(Position pos);
    void publish(const Row& row);
    void advance(Position upto);
    // Of what comes next some is gone; each subscription that it concerns is told once.
    void lose(std::span<const Lost> lost);
    // The ring's content is no longer valid.
    void forget();
    void reset(Position pos);

  private:
    struct Entry {
        Subscriber* subscriber;
        Position cursor;
    };
    using Entries = std::vector<Entry>;
    // The subscribers of one topic, patterns included. Not `merged`: no pattern matches, the
    // topic's own entries are all.
    struct Resolved {
        std::uint64_t generation = 0;
        bool merged = false;
        Entries entries;
    };
    struct TextHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const {
            return std::hash<std::string_view>{}(text);
        }
    };
    template <typename Value>
    using TextMap = std::unordered_map<std::string, Value, TextHash, std::equal_to<>>;

    void tell_missed(std::string_view topics, const Entries& entries, const Lost& lost) const;
    static bool remove(Entries& entries, const Subscriber& subscriber);
    const Entries& subscribers_of(std::string_view topic);
    Resolved resolve(std::string_view topic, const Entries& own) const;
    void forget_topic(std::string_view topic);

    TextMap<Entries> topics_;
    std::map<std::string, Entries, std::less<>> patterns_;
    TextMap<Resolved> resolved_;
    std::size_t resolved_entries_ = 0;
    std::uint64_t generation_ = 0;
    Ring ring_;
    Position position_ = 0;
    bool started_ = false;
    HubStats stats_;
};

}  // namespace herald
