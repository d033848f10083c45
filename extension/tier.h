// The two ways to keep the order, behind one door. Everything above it (sending, reading, batches,
// administration) is the same code in both:
//   plain     no engine loaded: one lock from a transaction's first send to its end (plain.cpp)
//   engine    shared_preload_libraries = 'pg_herald': positions and horizon in shared memory, no
//             waiting, announcements by the dispatcher (claim.cpp, dispatcher.cpp)
// tier() is the only place that asks which one it is.
#pragma once

#include <cstdint>

#include "row.h"

namespace herald {

struct Tier {
    // Before a transaction's messages get positions; reentrant. Plain: takes the order.
    void (*enter)();
    // `count` messages are about to be sent; a hint.
    void (*expect)(std::int64_t count);
    // The next position of this transaction's messages; they ascend.
    std::int64_t (*next_position)();
    // Whether `pos` was handed out to this transaction and may still be used.
    bool (*is_ours)(std::int64_t pos);
    // Whether this transaction has been handed a position, or will move the counter.
    bool (*has_claims)();
    // Whether messages of this transaction are being moved to other positions: to the log's trigger
    // those that go to another segment look like new ones.
    bool (*is_moving)();
    // How many messages of this transaction may still move to other positions, at most. Readers
    // leave them out, because whoever read them would get them again.
    std::int64_t (*unsettled)();
    // Keeps others from using this idempotency key in this topic until the transaction ends.
    void (*lock_key)(std::string_view topic, std::string_view key);
    // A row of this transaction has been stored, and is to be announced if `announced`.
    void (*stored)(const Row& row, bool announced);
    // What somebody has to do once in a while, after `sent` messages up to `pos`.
    void (*do_chores)(std::int64_t pos, int sent);
    // Everything up to here is decided. Call before the snapshot that reads it is taken.
    std::int64_t (*horizon)();
    // The same or more: also what is known of numbers that were handed out and not used, if nobody
    // sends just now.
    std::int64_t (*decided)();
    // Keeps other administrators (and, plain, senders) away until the transaction ends.
    void (*administer)();
    // Returns when every message of others at or below `pos` is decided; after administer().
    void (*settle)(std::int64_t pos);
    // Deletes this transaction's own messages of a topic, which nobody else has seen yet, if they
    // may still move. Gives how many.
    std::int64_t (*discard_own)(Datum topic);
    // Lets positions go on from `pos` when this transaction commits, if the segment of `pos` is
    // there by then. (The counter knows no rollback, a new segment does.) After administer().
    void (*move_counter_at_commit)(std::int64_t pos);
    // A dump was put back whose positions end below `pos`: they go on there or above, when this
    // transaction commits.
    void (*restored)(std::int64_t pos);
    // The first number that the counter has not handed out.
    std::int64_t (*next_free)();
    // Runs at the ends of transactions.
    void (*before_commit)();
    void (*after_end)(bool committed);
};

const Tier& tier();

extern const Tier kPlainTier;
extern const Tier kEngineTier;

// 0A000 unless the engine is loaded.
void require_engine(const char* what);

}  // namespace herald
