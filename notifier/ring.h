// Ring: the most recent frames of the log, so that a client that comes back soon is served
// without the database.
//
// Invariants
// - Every message above floor(), up to the position the feed stands at, is in the ring.
// - Bounded by bytes (of frames and topics) and by count; the oldest leave first and raise floor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "bus.h"
#include "frame.h"

namespace herald {

struct RingEntry {
    Position pos = 0;
    std::int64_t expires_us = 0;  // Unix microseconds; 0 = never
    std::string topic;
    Frame frame;
};

class Ring {
  public:
    static constexpr std::size_t kMaxCount = 65536;

    explicit Ring(std::size_t max_bytes) : max_bytes_(max_bytes) {}

    Position floor() const { return floor_; }
    std::size_t bytes() const { return bytes_; }
    std::size_t size() const { return entries_.size(); }
    // Whether a message of so many bytes has room at all. One that has not is answered by clear().
    bool has_room_for(std::size_t bytes) const { return bytes <= max_bytes_; }

    // The next message; `pos` above all before.
    void add(Position pos, std::string_view topic, std::int64_t expires_us, Frame frame);
    // Forgets everything; what follows is above `pos`.
    void clear(Position pos);
    // Index of the first entry above `after`; size() if there is none. Ascending pos.
    std::size_t first_above(Position after) const;
    const RingEntry& operator[](std::size_t index) const { return entries_[index]; }

  private:
    static std::size_t cost(const RingEntry& entry) {
        return entry.frame.size() + entry.topic.size();
    }

    std::size_t max_bytes_;
    std::deque<RingEntry> entries_;
    std::size_t bytes_ = 0;
    Position floor_ = 0;
};

}  // namespace herald
