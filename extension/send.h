// Sending: from a draft to a stored and announced message.
#pragma once

#include "log.h"
#include "row.h"

namespace herald {

// A message before it has a position, an id and a time.
struct Draft {
    Row row;
    const Interval* ttl;     // nullptr = never expires
    TimestampTz deliver_at;  // 0 = now

    static Draft empty() { return {Row::with_defaults(), nullptr, 0}; }
    void set_deliver_at(TimestampTz at);
};

// 22023 unless 0 <= priority <= 9.
void set_priority(Row& row, std::int64_t priority);

// The content of publish: the JSON value's text.
void set_payload(Row& row, Jsonb* payload);

// The topic of a message: the given one, else the recipient's inbox, else the workspace's, else
// broadcast.
Datum route(const Row& row);

// Stores one message, in the log or, if it is to be delivered later, in the schedule. Returns its
// id; for an idempotency key that was used in the same topic within herald.idempotency_window the
// first message's id, and stores nothing.
Datum send_draft(LogWriter& writer, Draft& draft);

// Stores and announces one message.
Datum send_one(Draft& draft);

}  // namespace herald
