#include "books.h"

#include "compat.h"
#include "keeper.h"
#include "locks.h"
#include "scoped.h"
#include "tier.h"

namespace herald {

namespace {

// The (sub)transaction that has noted restored messages last, and from where on.
struct Noted {
    TransactionId transaction;
    std::int64_t first;
};
constinit Noted noted = {InvalidTransactionId, 0};

}  // namespace

bool fold_counters() {
    // With one old snapshot for the whole transaction there is nothing new to see.
    if (IsolationUsesXactSnapshot()) return false;
    bool more = false;
    with_owner_spi([&] {
        run_statement("SELECT herald.fold()", SPI_OK_SELECT);
        bool null = false;
        more = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    });
    return more;
}

void note_restored(std::int64_t first, std::int64_t last) {
    // Rows come mostly in order: one note does for all that follow.
    const TransactionId transaction = GetCurrentTransactionId();
    const bool known = noted.transaction == transaction && noted.first <= first;
    if (known && first == last) return;
    with_owner_spi([&] {
        run_statement(psprintf("SELECT herald.recount(%lld, %lld)", static_cast<long long>(first),
                               static_cast<long long>(last)),
                      SPI_OK_SELECT);
    });
    if (!known) noted = {transaction, first};
}

HERALD_FUNCTION(herald_starts_changed) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("this function is a trigger of herald.topic_start"),
                        errhint("It cannot be called by itself.")));
    const LOCKTAG tag = herald_lock(kBooksKey);
    if (!lock_held_by_me(&tag, ExclusiveLock))
        with_owner_spi([] { run_statement("SELECT herald.recount(0, 0)", SPI_OK_SELECT); });
    wish_for_keeper();  // a segment may be free now
    return PointerGetDatum(nullptr);
}

HERALD_FUNCTION(herald_take_books) {
    const bool wait = PG_GETARG_BOOL(0);
    const LOCKTAG tag = herald_lock(kBooksKey);
    PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL);
}

HERALD_FUNCTION(herald_require_new_snapshots) {
    if (IsolationUsesXactSnapshot())
        ereport(ERROR,
                (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
                 errmsg("the messages that are there now cannot be counted in a %s transaction",
                        IsolationIsSerializable() ? "SERIALIZABLE" : "REPEATABLE READ"),
                 errhint("Use READ COMMITTED.")));
    PG_RETURN_VOID();
}

// Also those that were counted after the transaction's snapshot was taken.
HERALD_FUNCTION(herald_forget_counters) {
    static constinit KeptPlan plan;
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0)};
        const int code = SPI_execute_snapshot(
            plan.get("DELETE FROM herald.topic_segment WHERE topic = $1", {TEXTOID}), values,
            nullptr, GetActiveSnapshot(), InvalidSnapshot, false, true, 0);
        if (code != SPI_OK_DELETE) elog(ERROR, "herald: %s", SPI_result_code_string(code));
    });
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_decided) {
    PG_RETURN_INT64(tier().decided());
}

HERALD_FUNCTION(herald_has_unsettled) {
    PG_RETURN_BOOL(tier().unsettled() > 0);
}

}  // namespace herald
