// The keeper: a background worker that does for its database what takes long, so that the
// dispatcher never does: it counts the topics and lets go of what the rules of retention no longer
// keep. It is started when there is something to do and ends when there has been nothing for a
// while.
#pragma once

#include "engine.h"

namespace herald {

// The dispatcher: has the keeper work if it is time (bus.keep_at) or much has come. `now` is
// monotonic. Never waits.
void call_keeper_if_due(Bus& bus, std::int64_t now);

// There will be work for the keeper once this transaction has committed: what is kept has changed.
// Not if the keeper itself is changing it. `at`: then, not at once (monotonic microseconds).
void wish_for_keeper(std::int64_t at = 0);

bool keeper_is_wished_for();

// At the end of a transaction: if it had that wish, tells the dispatcher.
void keeper_transaction_ended(bool committed);

}  // namespace herald
