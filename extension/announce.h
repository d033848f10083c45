// Telling the world: NOTIFY on a message's channel with its envelope, and once per transaction on
// the doorbell channel `herald` with the last position. In the tier without the engine both are
// queued in the sender's transaction, so they are sent if it commits and only then; with it the
// dispatcher queues them in its own.
#pragma once

#include "row.h"

namespace herald {

// Where JSON is written to, in the current memory context.
struct StringInfoSink {
    StringInfo out = makeStringInfo();

    void append(std::string_view text) {
        appendBinaryStringInfo(out, text.data(), static_cast<int>(text.size()));
    }
    std::string_view view() const { return {out->data, static_cast<std::size_t>(out->len)}; }
};

// The LISTEN channel of a topic: the topic itself up to 63 bytes, else "herald:" and 32 hex digits
// of its SHA-256. Zero-terminated.
const char* channel_of(std::string_view topic);

// The envelope of a row: full, or in reference form if that has more than `max_bytes` bytes.
// Zero-terminated.
std::string_view envelope_of(const Row& row, std::int64_t max_bytes);

// Queues the NOTIFY of a stored row; gives the payload's bytes.
std::int64_t announce_on(const char* channel, const Row& row);
// Queues the doorbell: everything up to here can be read.
void ring_doorbell_at(std::int64_t pos);

// Without the engine, in the sender's transaction: queues the NOTIFY of a stored row and makes the
// doorbell ring at commit.
void announce(const Row& row);

// Tells notifiers to forget cached messages, when the transaction commits.
void announce_reset();

// Queues the doorbell; at XACT_EVENT_PRE_COMMIT.
void ring_doorbell();
// At the end of a transaction.
void forget_doorbell();

}  // namespace herald
