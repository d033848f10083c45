#include "books.h"

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

HERALD_FUNCTION(herald_take_books) {
    const bool wait = PG_GETARG_BOOL(0);
    const LOCKTAG tag = herald_lock(kBooksKey);
    PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL);
}

HERALD_FUNCTION(herald_has_unsettled) {
    PG_RETURN_BOOL(tier().unsettled() > 0);
}

}  // namespace herald
