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

struct Waste {
    Oid table;           // the first; InvalidOid: there is none
    std::int64_t bytes;  // of all
    bool purging;        // somebody wants bytes gone
};

std::int64_t size_of(Oid table) {
    return DatumGetInt64(DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(table)));
}

Waste find_waste() {
    Waste waste = {};
    with_owner_spi([&] {
        run_statement(
            "SELECT coalesce(min(w.waste::oid), 0),"
            " coalesce(sum(pg_total_relation_size(w.waste)), 0)::bigint,"
            " EXISTS (SELECT FROM herald.purge)"
            " FROM herald.waste_tables() AS w (waste)",
            SPI_OK_SELECT);
        const auto column = [](int number) {
            bool null = false;
            return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
        };
        waste = {DatumGetObjectId(column(1)), DatumGetInt64(column(2)), DatumGetBool(column(3))};
    });
    return waste;
}

bool is_waste(Oid table) {
    bool found = false;
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT FROM herald.waste_tables() AS w (waste) WHERE w.waste = %u", table),
            SPI_OK_SELECT);
        found = SPI_processed > 0;
    });
    return found;
}

// As DROP would, but drops nothing.
void require_droppable(Oid table) {
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
    RollbackAndReleaseCurrentSubTransaction();
    MemoryContextSwitchTo(caller);
    CurrentResourceOwner = owner;
    if (error != nullptr) ReThrowError(error);
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

// What is left is whole at each moment for VACUUM and ANALYZE of all tables: no row refers to a
// value that is gone, no index lacks its first page.
void shorten_table(Oid table, std::int64_t bytes) {
    Relation relation = table_open(table, AccessExclusiveLock);
    List* tables = list_make1_oid(table);
    List* indexes = RelationGetIndexList(relation);
    if (const Oid toast = relation->rd_rel->reltoastrelid; OidIsValid(toast)) {
        Relation values = table_open(toast, AccessExclusiveLock);
        tables = lappend_oid(tables, toast);
        indexes = list_concat(indexes, RelationGetIndexList(values));
        table_close(values, NoLock);
    }
    table_close(relation, NoLock);
    auto most = static_cast<BlockNumber>(bytes / BLCKSZ);
    ListCell* cell = nullptr;
    foreach (cell, tables) most -= shorten(lfirst_oid(cell), 0, most);
    foreach (cell, indexes) most -= shorten(lfirst_oid(cell), 1, most);
}

}  // namespace

void discard_member_table(Oid table) {
    LockRelationOid(table, AccessExclusiveLock);
    if (!IsBackgroundWorker || size_of(table) <= kStep || find_waste().purging) {
        drop_member_table(table);
    } else {
        require_droppable(table);
        rename_to_waste(table);
        due = 0;
    }
}

std::int64_t shorten_waste(const Bus& bus) {
    if (monotonic_us() < due) return due;
    Waste waste = {};
    const bool done = attempt(bus, [&] {
        in_transaction([&] {
            waste = find_waste();
            if (!OidIsValid(waste.table)) return;
            const std::int64_t bytes = Max(kStep, waste.bytes / kPart);
            if (waste.purging || size_of(waste.table) <= bytes) {
                drop_member_table(waste.table);
            } else {
                shorten_table(waste.table, bytes);
            }
        });
    });
    if (done && !OidIsValid(waste.table)) return Order::kNever;
    due = monotonic_us() + (done && waste.purging ? 0 : kPause);
    return due;
}

// For herald.maintain(): in the caller's transaction, if nobody has it open.
HERALD_FUNCTION(herald_drop_waste) {
    const Oid table = PG_GETARG_OID(0);
    if (!is_waste(table))
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("%s is no waste", DatumGetCString(DirectFunctionCall1(regclassout, table))),
                 errhint("herald.waste shows the tables that nothing needs.")));
    if (!ConditionalLockRelationOid(table, AccessExclusiveLock)) PG_RETURN_BOOL(false);
    // It may have been dropped meanwhile.
    if (is_waste(table)) as_owner([&] { drop_member_table(table); });
    PG_RETURN_BOOL(true);
}

}  // namespace herald
