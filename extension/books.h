// The books: counters of topics, and since when what has been readable (sql/25_books.sql). Kept
// under a lock of their own, which no sender waits for.
#pragma once

#include <cstdint>

namespace herald {

// Counts some of what has come since the last time, unless somebody else is at the books; true if
// there is more. Does nothing in a transaction that works with one old snapshot.
bool fold_counters();

// Messages from `first` to `last` were restored: what is counted there is counted again.
void note_restored(std::int64_t first, std::int64_t last);

}  // namespace herald
