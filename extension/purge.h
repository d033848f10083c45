// Purging: bytes of messages leave the files. herald.purge() notes which segments have to be
// rewritten for it (rewrite.h), and which other tables, which is done here: that of scheduled
// messages, and those of payloads.
#pragma once

#include "engine.h"

namespace herald {

// A round of the keeper; not in a transaction. False: something is in the way, try again. Rewrites
// the tables that purges ask for; who sends with deliver_at, or reads a payload, waits meanwhile.
bool scrub_tables(const Bus& bus);

}  // namespace herald
