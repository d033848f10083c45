// The tier with the engine: what this transaction has claimed of the order. The argument why it
// holds stands in core/horizon.h; here is what a sender does with it.
//
//   first numbers    near: up to kNearLimit of them, one low mark, taken from the counter
//   all further      far: from a block ahead of the counter, with room at its beginning for the
//                    near ones, so that a late transaction renumbers no more than those
//   a batch, a COPY  far from its first row
//
// At its end, before the commit becomes irrevocable:
//   not late                 as they are
//   near part late           its rows move into the room before the block, or into a new block
//   block late as well       (the counter reached it, and that was max_hold ago) all rows move into
//                            a new block further ahead; until the end comes first
//   then the counter moves past the block.
#include <bit>

#include "compat.h"
#include "engine.h"
#include "hooks.h"
#include "locks.h"
#include "log.h"
#include "register.h"
#include "scoped.h"
#include "settings.h"
#include "tier.h"

namespace herald {

namespace {

// A list of ranges, ascending, in the transaction's memory.
struct Ranges {
    Range* items;
    int count;
    int capacity;

    void add(Range range) {
        if (count > 0 && items[count - 1].end == range.first) {
            items[count - 1].end = range.end;
            return;
        }
        if (count == capacity) {
            capacity = Max(16, capacity * 2);
            const Size bytes = static_cast<Size>(capacity) * sizeof(Range);
            items = static_cast<Range*>(items == nullptr
                                            ? MemoryContextAlloc(TopTransactionContext, bytes)
                                            : repalloc(items, bytes));
        }
        items[count++] = range;
    }

    bool contains(std::int64_t pos) const {
        for (int i = count - 1; i >= 0; --i) {
            if (pos >= items[i].first) return pos < items[i].end;
        }
        return false;
    }
};

struct Claim {
    Bus* bus;  // nullptr: nothing has been claimed
    Slot* slot;
    Ranges near;             // numbers handed out, and a few that were not
    std::int64_t near_size;  // how many those are
    Range near_rest;         // taken and not yet handed out
    Ranges far;              // the blocks; those numbers that were handed out
    std::int64_t far_size;
    Range far_rest;
    bool has_block;         // there is something to give back under the lock
    std::int64_t room;      // first number of the room for the near ones; 0: none
    std::int64_t expected;  // messages that were announced to come
    std::int64_t last;      // the highest number handed out
    std::int64_t move_to;   // where the counter goes on after the commit; 0: where it is
    std::uint64_t touched[kBuckets / 64];  // a bit for each bucket it sent to
};

constinit Claim claim = {};
// From the decision at the commit to the end of the transaction: no more numbers.
constinit bool closed = false;

// COPY doesn't say how many rows it has; it is taken for this many at least.
constexpr std::int64_t kCopyExpects = 10'000;
constexpr std::int64_t kLargestStep = 65'536;

// How far ahead of the counter a block for `size` messages begins. The further, the less likely the
// counter reaches it while the transaction is open; but that many numbers are skipped, so it is in
// proportion to what they are skipped for. 2^53 numbers last for 3 * 10^13 messages sent so.
std::int64_t distance_for(const Bus& bus, std::int64_t size) {
    constexpr std::int64_t kLeast = 64;  // numbers skipped for a message
    constexpr std::int64_t kMost = 256;
    constexpr std::int64_t kSeconds = 60;  // it may be open so long, at today's rate
    return Min(Max(bus.rate.load() * kSeconds, kLeast * size), kMost * size);
}

// A block, or more of the last one.
Range take_more(std::int64_t size, std::int64_t distance, bool extend) {
    Range range;
    std::int64_t needed = 0;
    claim.has_block = true;
    const std::int64_t after = claim.far.count > 0 ? claim.far.items[claim.far.count - 1].end : 0;
    do {
        if (needed > 0) reserve_positions(*claim.bus, needed);
        with_lwlock(claim.bus->lock, LW_EXCLUSIVE, [&] {
            needed = 0;
            range = extend ? claim.bus->order.extend_block(*claim.slot, size) : Range{};
            if (range.empty())
                range = claim.bus->order.take_block(*claim.slot, size, distance, after, &needed);
        });
    } while (needed > 0);
    return range;
}

[[noreturn]] void refuse_block() {
    ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                    errmsg("too many transactions send many messages at the same time"),
                    errhint("Try again, or use fewer connections for bulk loads.")));
    pg_unreachable();
}

void begin_claim() {
    if (closed)
        ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
                        errmsg("cannot send a message while the transaction commits"),
                        errhint("Send before the end of the transaction.")));
    if (claim.bus != nullptr && !log_dropped_now()) return;
    Bus& bus = live_bus();
    if (claim.bus == nullptr) {
        claim.bus = &bus;
        claim.slot = &my_slot();
        claim.slot->order = order_name(bus);
        claim.slot->pid = MyProcPid;
    } else if (claim.bus != &bus) {
        ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
                        errmsg("pg_herald was dropped and created in a transaction that has sent"),
                        errhint("Send in a transaction of its own.")));
    }
}

std::int64_t next_near(std::int64_t count) {
    if (claim.near_rest.empty()) {
        Order& order = claim.bus->order;
        if (claim.near_size == 0) claim.slot->near.publish(order.next(), monotonic_us());
        const int size = static_cast<int>(Max(1, Min(count, Order::kNearLimit - claim.near_size)));
        for (;;) {
            claim.near_rest = order.take(size);
            if (!claim.near_rest.empty()) break;
            bool open = false;
            with_lwlock(claim.bus->lock, LW_EXCLUSIVE, [&] { open = order.open_region(size); });
            if (!open) reserve_positions(*claim.bus, order.next() + size);
        }
        claim.slot->near.count(size);
        claim.near.add(claim.near_rest);
        claim.near_size += size;
    }
    return claim.near_rest.first++;
}

std::int64_t next_far() {
    if (claim.far_rest.empty()) {
        const std::int64_t sent = claim.near_size + claim.far_size;
        const std::int64_t size = Max(claim.expected, Min(Max(sent, 256), kLargestStep));
        const bool first = claim.far.count == 0;
        const std::int64_t room = first ? claim.near_size : 0;
        Range range = take_more(room + size, distance_for(*claim.bus, sent + size), !first);
        if (range.empty()) {
            if (!first) refuse_block();
            return next_near(1);
        }
        if (first) claim.room = range.first;
        range.first += room;
        claim.far_rest = range;
    }
    const std::int64_t pos = claim.far_rest.first++;
    claim.far.add({pos, pos + 1});
    ++claim.far_size;
    return pos;
}

bool in_copy() {
    return error_context_stack != nullptr && error_context_stack->callback == CopyFromErrorCallback;
}

bool goes_far() {
    if (claim.far_size > 0) return true;
    if (!claim.near_rest.empty()) return false;
    return claim.near_size + Max(claim.expected, 1) > Order::kNearLimit ||
           (claim.near_size > 0 && claim.slot->near.view().state == Hold::State::kLate);
}

// The tier's functions

void enter() {
    begin_claim();
}

void expect(std::int64_t count) {
    claim.expected = count;
}

std::int64_t next_position() {
    begin_claim();
    if (claim.expected < kCopyExpects && in_copy()) claim.expected = kCopyExpects;
    const std::int64_t pos = goes_far() ? next_far() : next_near(claim.expected);
    if (claim.expected > 0) --claim.expected;
    claim.last = pos;
    return pos;
}

bool is_ours(std::int64_t pos) {
    return claim.bus != nullptr && pos <= claim.last &&
           (claim.far.contains(pos) || claim.near.contains(pos));
}

bool has_claims() {
    return claim.last > 0 || claim.move_to > 0;
}

bool is_moving() {
    return closed;
}

std::int64_t unsettled() {
    return claim.near_size + claim.far_size;
}

void lock_key(std::string_view topic, std::string_view key) {
    const auto bytes = [](std::string_view text) {
        return reinterpret_cast<const unsigned char*>(text.data());
    };
    const std::uint64_t seed =
        hash_bytes_extended(bytes(topic), static_cast<int>(topic.size()), 0x68657261);
    const LOCKTAG tag =
        hashed_lock(hash_bytes_extended(bytes(key), static_cast<int>(key.size()), seed));
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
}

void stored(const Row& row, bool announced) {
    if (!announced) return;
    const int bucket = bucket_of(row.text(kTopic));
    claim.touched[bucket / 64] |= std::uint64_t{1} << (bucket % 64);
}

void do_chores(std::int64_t, int) {}  // the dispatcher does them

std::int64_t horizon() {
    if (RecoveryInProgress()) return kPlainTier.horizon();
    Bus* bus = find_live_bus();
    if (bus == nullptr) {
        // This before the second look: a bus that comes to life moves the register afterwards.
        const std::int64_t free = first_free_position();
        bus = find_live_bus();
        if (bus == nullptr) return free - 1;
    }
    return bus_horizon(*bus).position;
}

void administer() {
    const LOCKTAG tag = herald_lock(kOrderKey);
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
}

void settle(std::int64_t pos) {
    Bus& bus = live_bus();
    ring(bus);
    ConditionVariablePrepareToSleep(&bus.advanced);
    // Its own messages are not waited for.
    while (bus_horizon(bus, &my_slot()).position < pos)
        (void)ConditionVariableTimedSleep(&bus.advanced, setting_max_hold, PG_WAIT_EXTENSION);
    ConditionVariableCancelSleep();
}

std::int64_t discard_own(Datum topic) {
    static constinit KeptPlan plan;
    std::int64_t discarded = 0;
    if (claim.last == 0) return 0;
    with_owner_spi([&] {
        const auto discard = [&](const Ranges& ranges) {
            for (int i = 0; i < ranges.count; ++i) {
                Datum values[] = {Int64GetDatum(ranges.items[i].first),
                                  Int64GetDatum(ranges.items[i].end), topic};
                const int code = SPI_execute_plan(
                    plan.get(
                        "DELETE FROM herald.message WHERE pos >= $1 AND pos < $2 AND topic = $3",
                        {INT8OID, INT8OID, TEXTOID}),
                    values, nullptr, false, 0);
                if (code != SPI_OK_DELETE) elog(ERROR, "herald: %s", SPI_result_code_string(code));
                discarded += static_cast<std::int64_t>(SPI_processed);
            }
        };
        discard(claim.near);
        discard(claim.far);
    });
    return discarded;
}

void move_counter_at_commit(std::int64_t pos) {
    begin_claim();
    reserve_positions(*claim.bus, pos + 1);
    claim.move_to = Max(claim.move_to, pos);
}

void restored(std::int64_t pos) {
    if (pos > live_bus().order.next()) move_counter_at_commit(pos);
}

std::int64_t next_free() {
    return live_bus().order.next();
}

// Moves the rows of these positions to `to` and following; gives where it goes on.
std::int64_t renumber(const Ranges& ranges, std::int64_t to) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    constexpr const char* kSql =
        "UPDATE herald.message SET pos = pos + $3 WHERE pos >= $1 AND pos < $2";
    with_owner_spi([&] {
        for (int i = 0; i < ranges.count; ++i) {
            const Range& range = ranges.items[i];
            Datum values[] = {Int64GetDatum(range.first), Int64GetDatum(range.end),
                              Int64GetDatum(to - range.first)};
            const int code = SPI_execute_plan(plan.get(kSql, {INT8OID, INT8OID, INT8OID}), values,
                                              nullptr, false, 0);
            if (code != SPI_OK_UPDATE) elog(ERROR, "herald: %s", SPI_result_code_string(code));
            claim.bus->restamped_messages += static_cast<std::int64_t>(SPI_processed);
            to += range.size();
        }
    });
    return to;
}

// All rows go to a block of their own, further ahead at each attempt.
void renumber_all(int attempt) {
    constexpr int kLastAttempt = 4;
    claim.slot->near.give_up();
    claim.slot->far.give_up();
    const Ranges near = claim.near;
    const Ranges far = claim.far;
    const std::int64_t size = claim.near_size + claim.far_size;
    claim.slot->far.clear();
    const Range block = take_more(size, distance_for(*claim.bus, size) << (2 * attempt), false);
    if (block.empty()) refuse_block();
    // Should the counter be faster still, the others wait once.
    if (attempt >= kLastAttempt) (void)claim.slot->far.decide();
    (void)segment_at(block.first);
    (void)segment_at(block.end - 1);
    claim.near = {};
    claim.near_size = 0;
    claim.far = {};
    claim.far.add(block);
    claim.far_size = size;
    claim.far_rest = {};
    claim.last = block.end - 1;
    const std::int64_t rest = renumber(near, block.first);
    (void)renumber(far, rest);
    claim.slot->near.clear();
}

void renumber_near() {
    Ranges near = claim.near;
    const Range room{claim.room, claim.room + claim.near_size};
    Ranges far = {};
    far.add(room);
    for (int i = 0; i < claim.far.count; ++i) far.add(claim.far.items[i]);
    claim.far = far;
    claim.far_size += claim.near_size;
    claim.near = {};
    claim.near_size = 0;
    (void)renumber(near, room.first);
}

void before_commit() {
    closed = true;
    if (claim.bus == nullptr || claim.last == 0) return;
    Slot& slot = *claim.slot;
    bool late = false;
    for (int attempt = 0;; ++attempt) {
        const bool far_fits = slot.far.decide();
        if (far_fits && slot.near.decide()) break;
        late = true;
        if (far_fits && claim.room > 0 && attempt == 0) {
            renumber_near();
            break;
        }
        renumber_all(attempt);
    }
    if (late) ++claim.bus->restamped_transactions;
    if (claim.far_size > 0)
        with_lwlock(claim.bus->lock, LW_EXCLUSIVE,
                    [] { claim.bus->order.advance(claim.last + 1); });
}

void after_end(bool committed) {
    closed = false;
    if (claim.bus == nullptr) {
        claim = {};  // it may have been told to expect something
        return;
    }
    Bus& bus = *claim.bus;
    Slot& slot = *claim.slot;
    if (committed && claim.last > 0) {
        for (int i = 0; i < kBuckets / 64; ++i) {
            for (std::uint64_t word = claim.touched[i]; word != 0; word &= word - 1)
                raise_to(bus.buckets[i * 64 + std::countr_zero(word)], claim.last);
        }
    }
    slot.near.clear();
    slot.far.clear();
    if (claim.has_block || claim.move_to > 0)
        with_lwlock(bus.lock, LW_EXCLUSIVE, [&] {
            bus.order.release_blocks(slot, claim.last + 1, claim.far_size);
            if (committed && claim.move_to > 0) bus.order.advance(claim.move_to);
        });
    ring(bus);
    claim = {};
}

}  // namespace

const Tier kEngineTier = {
    .enter = enter,
    .expect = expect,
    .next_position = next_position,
    .is_ours = is_ours,
    .has_claims = has_claims,
    .is_moving = is_moving,
    .unsettled = unsettled,
    .lock_key = lock_key,
    .stored = stored,
    .do_chores = do_chores,
    .horizon = horizon,
    .decided = horizon,
    .administer = administer,
    .settle = settle,
    .discard_own = discard_own,
    .move_counter_at_commit = move_counter_at_commit,
    .restored = restored,
    .next_free = next_free,
    .before_commit = before_commit,
    .after_end = after_end,
};

}  // namespace herald
