// Scheduled messages: those with a deliver_at wait in herald.scheduled, outside the log, and enter
// it when they are due: in the order of (deliver_at, id), at a position and a time taken then, with
// the id that the sender was told.
#pragma once

#include "engine.h"
#include "row.h"

namespace herald {

// Stores a checked row until `deliver_at`; needs the engine.
void schedule_message(const Row& row, TimestampTz deliver_at);

// The id of a scheduled message with this idempotency key, sent after `since`, or 0. In the
// caller's memory.
Datum find_scheduled_key(const Row& row, TimestampTz since);

// The dispatcher, outside a transaction: moves what is due into the log and notes what is next.
void deliver_due(Bus& bus);

// The dispatcher at its start, in a transaction: when the first one is due.
void look_for_scheduled(Bus& bus);

// Whether this transaction has changed the schedule.
bool schedule_is_touched();

// At the end of a transaction that changed the schedule: tells the dispatcher.
void schedule_transaction_ended();

}  // namespace herald
