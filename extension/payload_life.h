// What becomes of payloads: who read them, that they leave, that a dump brings them back.
#pragma once

#include "payload.h"

namespace herald {

// The current user has read bytes [from, to) of a payload, by this message (zero: by none). Notes
// it in accessed_at, at most once a minute and never waiting for anybody, and if herald.audit is on
// in herald.payload_audit: one row for calls of a role that go on where the last one ended, with
// the engine also if that was in another session. Not on a standby.
void note_access(const Payload& payload, const pg_uuid_t& message, std::int64_t from,
                 std::int64_t to);

}  // namespace herald
