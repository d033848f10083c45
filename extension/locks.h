// Heavy-weight locks of the bus: in the space of advisory locks, with fourth fields that the SQL
// functions cannot produce (they use 1 and 2), so that no application can collide with them.
#pragma once

#include <cstdint>

#include "pg.h"

namespace herald {

enum LockKey : std::uint32_t {
    kOrderKey,    // plain: the order of all messages; engine: administrators among themselves
    kAttachKey,   // engine: bringing a bus to life
    kReserveKey,  // engine: reserving numbers
    kBooksKey,    // writing the counters, the starts of topics and the marks of time
};

inline LOCKTAG herald_lock(LockKey key) {
    constexpr std::uint32_t kName = 0x68657261;
    constexpr std::uint16_t kClass = 7;
    LOCKTAG tag;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, kName, key, kClass);
    return tag;
}

// The lock of a table or an index.
inline LOCKTAG relation_lock(Oid relation) {
    LOCKTAG tag;
    SET_LOCKTAG_RELATION(tag, MyDatabaseId, relation);
    return tag;
}

// One per 64-bit hash of something.
inline LOCKTAG hashed_lock(std::uint64_t hash) {
    constexpr std::uint16_t kClass = 8;
    LOCKTAG tag;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<std::uint32_t>(hash >> 32),
                         static_cast<std::uint32_t>(hash), kClass);
    return tag;
}

// Runs `work` under a lock that is let go right after it, not at the end of the transaction.
template <typename Work>
void with_lock_for_now(const LOCKTAG& tag, Work&& work) {
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
    work();
    (void)LockRelease(&tag, ExclusiveLock, false);
}

}  // namespace herald
