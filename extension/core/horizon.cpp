#include "horizon.h"

#include <algorithm>

namespace herald {

void Hold::publish(std::int64_t low, std::int64_t since) {
    since_.store(since, std::memory_order_relaxed);
    taken_.store(0, std::memory_order_relaxed);
    word_.store(pack(low, State::kOpen), std::memory_order_seq_cst);
}

bool Hold::decide() {
    std::uint64_t word = word_.load(std::memory_order_seq_cst);
    if (state_of(word) != State::kOpen) return state_of(word) != State::kLate;
    return word_.compare_exchange_strong(word, pack(low_of(word), State::kCommitting),
                                         std::memory_order_seq_cst);
}

void Hold::give_up() {
    const std::uint64_t word = word_.load(std::memory_order_seq_cst);
    word_.store(pack(low_of(word), State::kLate), std::memory_order_seq_cst);
}

Hold::View Hold::view() const {
    const std::uint64_t word = word_.load(std::memory_order_seq_cst);
    return {state_of(word), low_of(word), since_.load(std::memory_order_relaxed)};
}

std::int64_t Hold::bound(const std::atomic<std::int64_t>& next, std::int64_t counter,
                         std::int64_t now, std::int64_t max_hold, std::int64_t& deadline) {
    std::uint64_t word = word_.load(std::memory_order_seq_cst);
    for (;;) {
        const State state = state_of(word);
        const std::int64_t low = low_of(word);
        if (state == State::kIdle || state == State::kLate || low >= counter) return counter;
        if (state == State::kCommitting) return low;
        // All numbers from low on are its own: nobody waits for it. (If the counter has moved
        // since, what it took meanwhile may stand in for somebody else's number.)
        if (counter - low == taken_.load(std::memory_order_acquire) &&
            next.load(std::memory_order_seq_cst) == counter)
            return low;
        std::int64_t since = since_.load(std::memory_order_relaxed);
        if (since == 0) {
            // A block, and the counter has passed it. (If its owner began anew just now, it counts
            // a little early, which costs it some work and breaks nothing.)
            if (since_.compare_exchange_strong(since, now, std::memory_order_relaxed)) since = now;
        }
        if (now - since < max_hold) {
            deadline = std::min(deadline, since + max_hold);
            return low;
        }
        // On failure `word` is what it has become.
        if (word_.compare_exchange_strong(word, pack(low, State::kLate), std::memory_order_seq_cst))
            return counter;
    }
}

void Order::start(std::int64_t first, std::int64_t reserved_end) {
    block_count_ = 0;
    skipped_.store(first, std::memory_order_relaxed);
    near_end_.store(first, std::memory_order_relaxed);
    reserved_end_.store(reserved_end, std::memory_order_relaxed);
    floor_.store(first - 1, std::memory_order_relaxed);
    next_.store(first, std::memory_order_seq_cst);
}

// Regions ascend, and the counter is moved to a region before near_end_ says that it is open. So a
// counter value below near_end_ lies in the open region if it is still the counter's, which the
// exchange finds out.
Range Order::take(int count) {
    std::int64_t first = next_.load(std::memory_order_seq_cst);
    while (first + count <= near_end_.load(std::memory_order_seq_cst)) {
        if (next_.compare_exchange_weak(first, first + count, std::memory_order_seq_cst))
            return {first, first + count};
    }
    return {};
}

bool Order::open_region(int count) {
    const std::int64_t end = near_end_.load(std::memory_order_seq_cst);
    std::int64_t now = next_.load(std::memory_order_seq_cst);
    // Others may be taking from the region right now: what is left of it is taken away from them.
    do {
        if (end - now >= count) return true;
    } while (now < end && !next_.compare_exchange_weak(now, end, std::memory_order_seq_cst));
    // From here on the counter is at or above near_end_, where only the lock's holder moves it.
    const std::int64_t start = gap(std::max(now, end), count);
    (void)skipped_.fetch_add(start - now, std::memory_order_relaxed);
    next_.store(start, std::memory_order_seq_cst);
    if (start + count > reserved_end()) return false;
    std::int64_t stop = std::min(start + kRegion, reserved_end());
    if (const Block* block = first_block_meeting({start, stop})) stop = block->range.first;
    near_end_.store(stop, std::memory_order_seq_cst);
    return true;
}

Range Order::take_block(Slot& slot, std::int64_t size, std::int64_t distance, std::int64_t at_least,
                        std::int64_t* needed) {
    *needed = 0;
    if (block_count_ == kMaxBlocks) return {};
    const std::int64_t stands = std::max(next(), near_end_.load(std::memory_order_seq_cst));
    const std::int64_t first = gap(std::max(stands + distance, at_least), size);
    const Range range{first, first + size};
    if (range.end > reserved_end()) {
        *needed = range.end;
        return {};
    }
    blocks_[block_count_++] = {range, &slot};
    if (slot.far.view().state == Hold::State::kIdle) slot.far.publish(first, 0);
    return range;
}

Range Order::extend_block(const Slot& slot, std::int64_t size) {
    Block* block = last_block_of(slot);
    if (block == nullptr) return {};
    const Range more{block->range.end, block->range.end + size};
    const std::int64_t stands = std::max(next(), near_end_.load(std::memory_order_seq_cst));
    if (more.first < stands || more.end > reserved_end() || first_block_meeting(more) != nullptr)
        return {};
    block->range.end = more.end;
    return more;
}

void Order::advance(std::int64_t to) {
    std::int64_t now = next_.load(std::memory_order_seq_cst);
    while (now < to && !next_.compare_exchange_weak(now, to, std::memory_order_seq_cst)) {
    }
    if (now < to) (void)skipped_.fetch_add(to - now, std::memory_order_relaxed);
}

void Order::release_blocks(const Slot& slot, std::int64_t used, std::int64_t count) {
    Block* const end = blocks_ + block_count_;
    Block* const kept =
        std::remove_if(blocks_, end, [&](const Block& block) { return block.owner == &slot; });
    block_count_ = static_cast<int>(kept - blocks_);
    advance(used);
    (void)skipped_.fetch_add(-count, std::memory_order_relaxed);
}

Order::Horizon Order::horizon(Slot* slots, std::size_t count, std::uint32_t name, std::int64_t now,
                              std::int64_t max_hold, const Slot* except) {
    const std::int64_t counter = next_.load(std::memory_order_seq_cst);
    std::int64_t low = counter;
    std::int64_t deadline = kNever;
    for (std::size_t i = 0; i < count; ++i) {
        Slot& slot = slots[i];
        if (&slot == except || slot.order.load(std::memory_order_seq_cst) != name) continue;
        low = std::min(low, slot.near.bound(next_, counter, now, max_hold, deadline));
        low = std::min(low, slot.far.bound(next_, counter, now, max_hold, deadline));
    }
    std::int64_t floor = floor_.load(std::memory_order_seq_cst);
    while (except == nullptr && floor < low - 1 &&
           !floor_.compare_exchange_weak(floor, low - 1, std::memory_order_seq_cst)) {
    }
    return {std::max(floor, low - 1), deadline};
}

Order::Block* Order::last_block_of(const Slot& slot) {
    Block* last = nullptr;
    for (Block* block = blocks_; block != blocks_ + block_count_; ++block) {
        if (block->owner == &slot && (last == nullptr || block->range.first > last->range.first))
            last = block;
    }
    return last;
}

const Order::Block* Order::first_block_meeting(Range range) const {
    const Block* first = nullptr;
    for (const Block* block = blocks_; block != blocks_ + block_count_; ++block) {
        if (block->range.first < range.end && block->range.end > range.first &&
            (first == nullptr || block->range.first < first->range.first))
            first = block;
    }
    return first;
}

std::int64_t Order::gap(std::int64_t from, std::int64_t size) const {
    while (const Block* block = first_block_meeting({from, from + size})) from = block->range.end;
    return from;
}

}  // namespace herald
