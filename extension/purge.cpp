#include "purge.h"

#include "log.h"
#include "scoped.h"
#include "worker.h"

namespace herald {

namespace {

// A table that a purge has deleted rows of, and the last purge for which it can be rewritten by
// VACUUM: no snapshot needs what that one has deleted. (Segments and tables of payloads: rewrite.h)
struct Wanted {
    NameData table;  // empty: none
    std::int64_t purge;
};

bool purges_want_tables() {
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

Wanted find_wanted() {
    Wanted wanted = {};
    const TransactionId oldest = oldest_needed();
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT n.name::name, max(p.id)"
                     " FROM herald.purge AS p, unnest(p.tables) AS n (name)"
                     " WHERE pg_catalog.age(p.xmin) > pg_catalog.age('%u'::pg_catalog.xid)"
                     " AND n.name = 'scheduled'"
                     " GROUP BY n.name ORDER BY n.name LIMIT 1",
                     oldest),
            SPI_OK_SELECT);
        if (SPI_processed == 0) return;
        const auto column = [](int number) {
            bool null = false;
            return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
        };
        wanted.table = *DatumGetName(column(1));
        wanted.purge = DatumGetInt64(column(2));
    });
    return wanted;
}

void note_scrubbed(const Wanted& wanted) {
    with_owner_spi([&] {
        run_statement(psprintf("UPDATE herald.purge SET tables = array_remove(tables, '%s')"
                               " WHERE id <= %lld",
                               NameStr(wanted.table), static_cast<long long>(wanted.purge)),
                      SPI_OK_UPDATE);
    });
}

}  // namespace

bool scrub_tables(const Bus& bus) {
    bool wanted = false;
    in_transaction([&] { wanted = purges_want_tables(); });
    if (!wanted) return true;
    Wanted next = {};
    in_transaction([&] { next = find_wanted(); });
    if (NameStr(next.table)[0] == '\0') return false;
    char sql[NAMEDATALEN + 32];
    snprintf(sql, sizeof sql, "VACUUM (FULL) herald.%s", NameStr(next.table));
    if (!attempt(bus, [&] { run_utility(sql); })) return false;
    in_transaction([&] { note_scrubbed(next); });
    return false;  // perhaps there is another
}

}  // namespace herald
