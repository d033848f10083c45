// Rewriting segments of the log, and tables of payloads, of which little is kept: that moves to
// files of its own, and the old files leave the disk. For the keeper; which ones, is said by
// herald.rewritable_tables().
//
//   1. The table is locked against writing, until the end. (Nobody who sends writes to it: it is
//      closed. Whoever waits for this lock, say a restore, makes the keeper give up.)
//   2. What is kept is copied, a few pages a transaction, into the table herald.rewrite_<n> or
//      herald.rewrite_payload_<n>, which has the same indexes. It enters as rows that everybody
//      sees (frozen).
//   3. When all snapshots of this database are younger than the look at what is kept, the two
//      tables exchange their files, under a lock that nobody has for longer than a few
//      milliseconds, and the new table goes, with the old files (waste.h).
//
// So whoever has an old snapshot reads what he would have read. Nothing is copied while there is
// somebody whom the last step would have to wait for for long. The exchange locks out readers:
// those whose transactions are there are waited for without a lock, then the lock is asked for,
// kMostQueue long. After a crash the table is as before; what was copied is dropped by the next
// keeper.
#pragma once

#include "engine.h"

namespace herald {

// A round; not in a transaction. False: something is in the way, or there is more to do: try again.
// Locks are waited for as long as lock_timeout says.
bool rewrite_tables(const Bus& bus);

// Whether a copy is under way that would be lost with this process.
bool is_copying();

// At the beginning of each round, before anything is waited for: gives the table that is being
// rewritten up if somebody waits for it. What was copied is dropped in a later round.
void give_way();

}  // namespace herald
