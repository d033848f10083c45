#include "segments.h"

#include "compat.h"
#include "locks.h"
#include "log.h"
#include "scoped.h"
#include "waste.h"
#include "worker.h"

namespace herald {

namespace {

struct Segment {
    std::int64_t number;
    Oid table;
    bool attached;
    bool pending;  // detaching it was begun
};

// Removed in one round at most.
constexpr int kMost = 64;

constinit bool has_books = false;

// For this session: the steps are transactions of their own.
bool take_books() {
    const LOCKTAG tag = herald_lock(kBooksKey);
    has_books = LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
    return has_books;
}

int removable(Segment* segments) {
    int count = 0;
    with_owner_spi([&] {
        run_statement(
            "SELECT number, segment::oid, attached, pending"
            " FROM herald.removable_segments() ORDER BY pending DESC, number",
            SPI_OK_SELECT);
        for (std::uint64_t i = 0; i < SPI_tuptable->numvals && count < kMost; ++i) {
            const auto column = [&](int number) {
                bool null = false;
                return SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, number, &null);
            };
            segments[count++] = {DatumGetInt64(column(1)), DatumGetObjectId(column(2)),
                                 DatumGetBool(column(3)), DatumGetBool(column(4))};
        }
    });
    return count;
}

bool is_removable(Oid table) {
    bool removable = false;
    with_owner_spi([&] {
        run_statement(psprintf("SELECT FROM herald.removable_segments() WHERE segment = %u", table),
                      SPI_OK_SELECT);
        removable = SPI_processed > 0;
    });
    return removable;
}

void detach(const Segment& segment) {
    char sql[160];
    snprintf(sql, sizeof sql, "ALTER TABLE herald.message DETACH PARTITION herald.message_%lld %s",
             static_cast<long long>(segment.number), segment.pending ? "FINALIZE" : "CONCURRENTLY");
    run_utility(sql);
}

// If nobody has it open.
void empty(const Segment& segment) {
    if (!ConditionalLockRelationOid(segment.table, AccessExclusiveLock)) return;
    Relation relation = table_open(segment.table, NoLock);
    const bool has_something = RelationGetNumberOfBlocks(relation) > 0;
    table_close(relation, NoLock);
    if (!has_something) return;
    with_owner_spi([&] {
        run_statement(
            psprintf("TRUNCATE ONLY herald.message_%lld", static_cast<long long>(segment.number)),
            SPI_OK_UTILITY);
    });
}

bool remove(const Bus& bus, const Segment& segment) {
    if (segment.attached && !attempt(bus, [&] { detach(segment); })) return false;
    return attempt(bus, [&] { in_transaction([&] { discard_member_table(segment.table); }); });
}

// Whatever others have made of one segment, say a view on it, is their own affair: it keeps that
// segment's table, but not its content, and no other segment. It is told of once in a keeper's
// life.
bool remove_or_tell(const Bus& bus, const Segment& segment) {
    static constinit bool told = false;
    MemoryContext caller = CurrentMemoryContext;
    volatile bool done = true;
    volatile bool failed = false;
    PG_TRY();
    { done = remove(bus, segment); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(caller);
        if (geterrcode() == ERRCODE_QUERY_CANCELED) PG_RE_THROW();
        if (!told) EmitErrorReport();
        told = true;
        FlushErrorState();
        AbortOutOfAnyTransaction();
        failed = true;
    }
    PG_END_TRY();
    if (failed) (void)attempt(bus, [&] { in_transaction([&] { empty(segment); }); });
    return done;
}

// The one that is marked comes first: as long as there is one, no other can be detached.
bool remove_all(const Bus& bus, const Segment* segments, int count) {
    bool all = true;
    bool free = false;
    for (int i = 0; i < count; ++i) {
        const Segment& segment = segments[i];
        if (i == 0 && !segment.pending)
            free = attempt(bus, [] { in_transaction([] { wait_for_users(log_table()); }); });
        if (free || segment.pending || !segment.attached) {
            const bool removed = remove_or_tell(bus, segment);
            free = removed && (free || segment.pending);
            all = removed && all;
        } else {
            (void)attempt(bus, [&] { in_transaction([&] { empty(segment); }); });
            all = false;
        }
        heed_signals();
    }
    return all;
}

}  // namespace

bool remove_segments(const Bus& bus) {
    Segment segments[kMost];
    int count = 0;
    bool taken = false;
    in_transaction([&] {
        taken = take_books();
        if (taken) count = removable(segments);
    });
    if (!taken) return false;
    const bool all = remove_all(bus, segments, count);
    abandon_removal();
    return all;
}

void abandon_removal() {
    if (!has_books) return;
    const LOCKTAG tag = herald_lock(kBooksKey);
    (void)LockRelease(&tag, ExclusiveLock, true);
    has_books = false;
}

// For herald.maintain(): in the caller's transaction, if nobody has the log open.
HERALD_FUNCTION(herald_remove_segment) {
    const Oid table = PG_GETARG_OID(0);
    const LOCKTAG books = herald_lock(kBooksKey);
    if (!lock_held_by_me(&books, ExclusiveLock) || !is_removable(table))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("segment %u of the log is not to be removed", table),
                        errhint("herald.maintain() removes what nothing needs.")));
    if (!ConditionalLockRelationOid(log_table(), AccessExclusiveLock) ||
        !ConditionalLockRelationOid(table, AccessExclusiveLock))
        PG_RETURN_BOOL(false);
    Relation segment = table_open(table, NoLock);
    const Oid toast = segment->rd_rel->reltoastrelid;
    table_close(segment, NoLock);
    if (!ConditionalLockRelationOid(toast, AccessExclusiveLock)) PG_RETURN_BOOL(false);
    as_owner([&] { drop_member_table(table); });
    PG_RETURN_BOOL(true);
}

}  // namespace herald
