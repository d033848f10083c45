#include "ring.h"

#include <algorithm>
#include <utility>

namespace herald {

void Ring::add(Position pos, std::string_view topic, std::int64_t expires_us, Frame frame) {
    RingEntry entry{pos, expires_us, std::string(topic), std::move(frame)};
    bytes_ += cost(entry);
    entries_.push_back(std::move(entry));
    while (bytes_ > max_bytes_ || entries_.size() > kMaxCount) {
        floor_ = entries_.front().pos;
        bytes_ -= cost(entries_.front());
        entries_.pop_front();
    }
}

void Ring::clear(Position pos) {
    entries_.clear();
    bytes_ = 0;
    floor_ = pos;
}

std::size_t Ring::first_above(Position after) const {
    const auto found = std::upper_bound(
        entries_.begin(), entries_.end(), after,
        [](Position position, const RingEntry& entry) { return position < entry.pos; });
    return static_cast<std::size_t>(found - entries_.begin());
}

}  // namespace herald
