#include "purge.h"

#include "log.h"
#include "scoped.h"
#include "worker.h"

namespace herald {

namespace {

bool purges_want_it() {
    bool wanted = false;
    with_owner_spi([&] {
        run_statement("SELECT FROM herald.purge WHERE 'scheduled' = ANY (tables) LIMIT 1",
                      SPI_OK_SELECT);
        wanted = SPI_processed > 0;
    });
    return wanted;
}

// PostgreSQL's answer for a table counts for all tables of the database.
TransactionId oldest_needed() {
    Relation log = table_open(log_table(), AccessShareLock);
    const TransactionId oldest = GetOldestNonRemovableTransactionId(log);
    table_close(log, NoLock);
    return oldest;
}

// The last purge such that no snapshot needs what it has deleted, so that VACUUM takes it away.
// 0: none.
std::int64_t last_due() {
    std::int64_t due = 0;
    const TransactionId oldest = oldest_needed();
    with_owner_spi([&] {
        run_statement(psprintf("SELECT coalesce(max(p.id), 0) FROM herald.purge AS p"
                               " WHERE 'scheduled' = ANY (p.tables)"
                               " AND pg_catalog.age(p.xmin) > pg_catalog.age('%u'::pg_catalog.xid)",
                               oldest),
                      SPI_OK_SELECT);
        bool null = false;
        due = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    });
    return due;
}

void note_scrubbed(std::int64_t upto) {
    with_owner_spi([&] {
        run_statement(psprintf("UPDATE herald.purge SET tables = array_remove(tables, 'scheduled')"
                               " WHERE id <= %lld",
                               static_cast<long long>(upto)),
                      SPI_OK_UPDATE);
    });
}

}  // namespace

bool scrub_scheduled(const Bus& bus) {
    bool wanted = false;
    in_transaction([&] { wanted = purges_want_it(); });
    if (!wanted) return true;
    std::int64_t due = 0;
    in_transaction([&] { due = last_due(); });
    if (due == 0 || !attempt(bus, [] { run_utility("VACUUM (FULL) herald.scheduled"); }))
        return false;
    in_transaction([&] { note_scrubbed(due); });
    return false;  // perhaps there is another
}

}  // namespace herald
