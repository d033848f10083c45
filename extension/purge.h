// Purging: bytes of messages leave the files. herald.purge() notes which segments and tables of
// payloads have to be rewritten for it (rewrite.h), and whether that of scheduled messages, which
// is done here.
#pragma once

#include "engine.h"

namespace herald {

// A round of the keeper; not in a transaction. False: something is in the way, try again. Rewrites
// the table if purges ask for it; who sends with deliver_at waits meanwhile.
bool scrub_scheduled(const Bus& bus);

}  // namespace herald
