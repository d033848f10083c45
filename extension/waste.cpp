#include "waste.h"

#include "compat.h"
#include "log.h"
#include "scoped.h"
#include "worker.h"

namespace herald {

namespace {

// One step gives back so much, or this part of all waste if that is more: so there is never more
// waste than what comes in four minutes, or can be given back in four. Bytes.
constexpr std::int64_t kStep = 16 * 1024 * 1024;
constexpr std::int64_t kPart = 256;
// Between two steps; with half of it 16 senders' p99 was 1.3 times as long, with this it is not
// measurably longer. Microseconds.
constexpr std::int64_t kPause = 1'000'000;

// The keeper's: when the next step is due.
constinit std::int64_t due = 0;

// So many tables one step looks at.
constexpr int kMost = 16;

constinit bool told_of_dependents = false;

std::int64_t size_of(Oid table) {
    return DatumGetInt64(DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(table)));
}

bool has_rows(const char* sql) {
    bool found = false;
    with_owner_spi([&] {
        run_statement(sql, SPI_OK_SELECT);
        found = SPI_processed > 0;
    });
    return found;
}

// Whether somebody wants bytes gone.
bool is_purging() {
    return has_rows("SELECT FROM herald.purge LIMIT 1");
}

// The first of the tables; gives how many.
int find_waste(Oid* tables) {
    int count = 0;
    with_owner_spi([&] {
        run_statement(psprintf("SELECT w.waste::oid FROM herald.waste_tables() AS w (waste)"
                               " ORDER BY 1 LIMIT %d",
                               kMost),
                      SPI_OK_SELECT);
        for (std::uint64_t i = 0; i < SPI_processed; ++i) {
            bool null = false;
            tables[count++] = DatumGetObjectId(
                SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null));
        }
    });
    return count;
}

bool exists(Oid table) {
    return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table));
}

// A table, its TOAST table, then the indexes of both; the caller has the locks of the tables.
struct Parts {
    List* tables;
    List* indexes;
};

Parts parts_of(Oid table) {
    Relation relation = table_open(table, NoLock);
    Parts parts = {list_make1_oid(table), RelationGetIndexList(relation)};
    const Oid toast = relation->rd_rel->reltoastrelid;
    table_close(relation, NoLock);
    if (OidIsValid(toast)) {
        Relation values = table_open(toast, AccessExclusiveLock);
        parts.tables = lappend_oid(parts.tables, toast);
        parts.indexes = list_concat(parts.indexes, RelationGetIndexList(values));
        table_close(values, NoLock);
    }
    return parts;
}

bool lock_all(List* relations) {
    ListCell* cell = nullptr;
    foreach (cell, relations)
        if (!ConditionalLockRelationOid(lfirst_oid(cell), AccessExclusiveLock)) return false;
    return true;
}

// Locks a table with all that belongs to it, without waiting. False: somebody has it open, or it is
// gone.
bool lock_now(Oid table) {
    if (!ConditionalLockRelationOid(table, AccessExclusiveLock) || !exists(table)) return false;
    Relation relation = table_open(table, NoLock);
    const Oid toast = relation->rd_rel->reltoastrelid;
    table_close(relation, NoLock);
    return (!OidIsValid(toast) || ConditionalLockRelationOid(toast, AccessExclusiveLock)) &&
           lock_all(parts_of(table).indexes);
}

// Drops a table, or only tries whether it could be dropped. nullptr, or the error: then it is as it
// was.
ErrorData* try_drop(Oid table, bool for_good) {
    MemoryContext caller = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    ErrorData* volatile error = nullptr;
    BeginInternalSubTransaction(nullptr);
    PG_TRY();
    { drop_member_table(table); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(caller);
        error = CopyErrorData();
        FlushErrorState();
    }
    PG_END_TRY();
    if (for_good && error == nullptr) {
        ReleaseCurrentSubTransaction();
    } else {
        RollbackAndReleaseCurrentSubTransaction();
    }
    MemoryContextSwitchTo(caller);
    CurrentResourceOwner = owner;
    return error;
}

// Whatever others have made of waste, say a view on it, is their own affair: it stays, and is told
// of once in a keeper's life.
bool drop_or_tell(Oid table) {
    ErrorData* error = try_drop(table, true);
    if (error == nullptr) return true;
    if (error->sqlerrcode != ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST) ReThrowError(error);
    if (!told_of_dependents)
        ereport(WARNING, (errcode(error->sqlerrcode), errmsg("%s", error->message),
                          error->detail != nullptr ? errdetail("%s", error->detail) : 0,
                          errhint("It holds nothing that herald needs.")));
    told_of_dependents = true;
    return false;
}

// Out of sight of whoever looks for it by its name or through its parent, and of autovacuum.
void rename_to_waste(Oid table) {
    const bool has_payloads = has_superclass(table);
    const char* name = psprintf("waste_%u", table);
    RenameRelationInternal(table, name, true, false);
    CommandCounterIncrement();
    with_owner_spi([&] {
        run_statement(psprintf("ALTER TABLE herald.%s%s SET (autovacuum_enabled = off,"
                               " toast.autovacuum_enabled = off)",
                               name, has_payloads ? " NO INHERIT herald.payload_chunk," : ""),
                      SPI_OK_UTILITY);
    });
}

// Takes pages from the end of a relation, down to `least`; gives how many.
BlockNumber shorten(Oid relation, BlockNumber least, BlockNumber most) {
    Relation opened = relation_open(relation, AccessExclusiveLock);
    const BlockNumber pages = RelationGetNumberOfBlocks(opened);
    const BlockNumber taken = pages > least ? Min(most, pages - least) : 0;
    if (taken > 0) RelationTruncate(opened, pages - taken);
    relation_close(opened, NoLock);
    return taken;
}

// What is left of a segment is whole at each moment for VACUUM and ANALYZE of all tables: no row
// refers to a value that is gone, no index lacks its first page. (What a rewriting has left refers
// to values that are not there; only VACUUM FULL would look for them.)
void shorten_table(Oid table, std::int64_t bytes) {
    const Parts parts = parts_of(table);
    auto most = static_cast<BlockNumber>(bytes / BLCKSZ);
    ListCell* cell = nullptr;
    foreach (cell, parts.tables) most -= shorten(lfirst_oid(cell), 0, most);
    foreach (cell, parts.indexes) most -= shorten(lfirst_oid(cell), 1, most);
}

// In a transaction; false: there is no waste.
bool take_step() {
    Oid tables[kMost];
    const int count = find_waste(tables);
    const bool purging = count > 0 && is_purging();
    std::int64_t sizes[kMost];
    std::int64_t total = 0;
    for (int i = 0; i < count; ++i) {
        sizes[i] = lock_now(tables[i]) ? size_of(tables[i]) : -1;
        total += Max(0, sizes[i]);
    }
    std::int64_t left = Max(kStep, total / kPart);
    for (int i = 0; i < count && left > 0; ++i) {
        if (sizes[i] < 0) continue;
        if (purging || sizes[i] <= left) {
            const bool dropped = drop_or_tell(tables[i]);
            if (dropped && !purging) left -= sizes[i];
        } else {
            shorten_table(tables[i], left);
            left = 0;
        }
    }
    return count > 0;
}

}  // namespace

void discard_member_table(Oid table) {
    LockRelationOid(table, AccessExclusiveLock);
    if (MyBackendType != B_BG_WORKER || size_of(table) <= kStep || is_purging()) {
        drop_member_table(table);
    } else {
        if (ErrorData* error = try_drop(table, false)) ReThrowError(error);
        rename_to_waste(table);
        due = 0;
    }
}

std::int64_t shorten_waste(const Bus& bus) {
    if (monotonic_us() < due) return due;
    bool there = true;
    (void)attempt(bus, [&] { in_transaction([&] { there = take_step(); }); });
    if (!there) return Order::kNever;
    due = monotonic_us() + kPause;
    return due;
}

// For herald.maintain(): in the caller's transaction, if nobody has it open.
HERALD_FUNCTION(herald_drop_waste) {
    const Oid table = PG_GETARG_OID(0);
    const char* sql =
        "SELECT FROM herald.waste_tables() AS w (waste) WHERE w.waste = %u UNION ALL"
        " SELECT FROM herald.rewrite_tables() AS r (leftover) WHERE r.leftover = %u AND NOT %s";
    const bool is_waste = has_rows(psprintf(sql, table, table, engine_loaded() ? "true" : "false"));
    if (!is_waste && exists(table))
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("%s is no waste", DatumGetCString(DirectFunctionCall1(regclassout, table))),
                 errhint("herald.waste shows the tables that nothing needs.")));
    if (!lock_now(table)) PG_RETURN_BOOL(!exists(table));  // it may have been dropped meanwhile
    as_owner([&] { drop_member_table(table); });
    PG_RETURN_BOOL(true);
}

}  // namespace herald
