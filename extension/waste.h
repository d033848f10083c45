// Giving back the disk of tables that nothing needs any more. When files of gigabytes are deleted
// at once, the disk may stall: commits of others then wait for it (with ext4's `discard` for up to
// a second). So a large table gets the name herald.waste_<oid>, under which nobody looks for it,
// and its files are shortened a step at a time until little is left.
//
// A crash between two steps leaves a shorter table; whoever finds it goes on.
#pragma once

#include <cstdint>

#include "engine.h"

namespace herald {

// Drops a table that is a member of the extension, in the caller's transaction; a large one becomes
// waste, if this is a background worker and no purge wants its bytes gone. Error if somebody has
// made something of it, say a view. Waits for its lock as long as lock_timeout says.
void discard_member_table(Oid table);

// A step, if one is due; not in a transaction. Gives when the next is (monotonic, microseconds);
// Order::kNever: there is no waste.
std::int64_t shorten_waste(const Bus& bus);

}  // namespace herald
