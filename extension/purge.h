// Purging: bytes of messages leave the files. herald.purge() notes which segments have to be
// rewritten for it (rewrite.h); the rest, the table of scheduled messages, is here.
#pragma once

#include "engine.h"

namespace herald {

// A round of the keeper; not in a transaction. False: something is in the way, try again. Rewrites
// herald.scheduled if a purge asks for it; who sends with deliver_at waits meanwhile.
bool scrub_schedule(const Bus& bus);

}  // namespace herald
