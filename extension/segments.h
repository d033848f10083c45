// Removing segments of the log: for the keeper, without a lock that anybody waits for.
//
// Which may go is said by herald.removable_segments(). One goes in three steps, each of them one
// that can be the last before a crash:
//   1. DETACH CONCURRENTLY marks it in the catalog: statements that begin from here on don't see it
//   2. and waits until nobody has the log open who may have seen it; then it is a table of its own
//   3. DROP; a large one becomes waste (waste.h)
// Who is not gone in time is not waited for: the mark stays, and DETACH … FINALIZE does the rest in
// a later round. Before step 1 is taken, the keeper looks whether somebody has the log open for
// long. Then it empties the segment instead, if nobody has that open: the disk is free at once.
//
// From the look at what may go until it is gone the keeper has the books, so nobody restores
// messages into the segment; nobody who sends can come back to it (herald.held_by).
#pragma once

#include "engine.h"

namespace herald {

// A round; not in a transaction. False: something is in the way, try again. Locks are waited for as
// long as lock_timeout says.
bool remove_segments(const Bus& bus);

// After an error: lets go of the books.
void abandon_removal();

}  // namespace herald
