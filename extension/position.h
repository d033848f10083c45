// Positions: the one order of all messages (G2), in the tier without the engine.
//
// A sender takes one lock per database before its first position and holds it until its commit or
// abort is visible (PostgreSQL releases transaction locks after that). Numbers come from a
// sequence under the lock. So positions become visible in their order: whoever sees position p
// sees every committed message below p, and none can appear there later; any snapshot is a
// consistent prefix of the log.
//
// The lock belongs to the subtransaction that took it. If that is rolled back the lock is free
// again, and positions that were handed out under it are holes.
#pragma once

#include <cstdint>

namespace herald {

// Waits until no other open transaction has sent, and keeps others from sending until the end of
// this transaction. Reentrant.
void take_order();

// The next position; takes the order first.
std::int64_t next_position();

// Whether `pos` was handed out to this transaction while it has been holding the order: only then
// can a row with this position be stored without breaking the order.
bool position_is_ours(std::int64_t pos);

// Everything up to here is decided. Call inside with_fresh_spi.
std::int64_t read_horizon();

// Lets positions go on from `pos` when this transaction commits, if the segment of `pos` is there
// by then. (The counter knows no rollback, a new segment does.) Call while holding the order.
void move_counter_at_commit(std::int64_t pos);

// At XACT_EVENT_PRE_COMMIT.
void move_counter_now();

// At the end of a transaction: none are ours any more.
void forget_positions();

// Whether this transaction has been handed a position.
bool has_positions();

}  // namespace herald
