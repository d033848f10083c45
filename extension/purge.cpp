#include "purge.h"

#include "log.h"
#include "scoped.h"
#include "worker.h"

namespace herald {

namespace {

// The last purge that wants it; 0: none.
std::int64_t last_purge(const char* condition) {
    std::int64_t last = 0;
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT coalesce(max(id), 0) FROM herald.purge WHERE scheduled%s", condition),
            SPI_OK_SELECT);
        bool null = false;
        last = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    });
    return last;
}

// The last purge whose deletions no snapshot needs any more.
std::int64_t last_settled_purge() {
    Relation schedule = table_open(get_relname_relid("scheduled", log_schema()), AccessShareLock);
    const TransactionId needed = GetOldestNonRemovableTransactionId(schedule);
    table_close(schedule, NoLock);
    return last_purge(
        psprintf(" AND pg_catalog.age(xmin) > pg_catalog.age('%u'::pg_catalog.xid)", needed));
}

}  // namespace

bool scrub_schedule(const Bus& bus) {
    std::int64_t wanted = 0;
    std::int64_t settled = 0;
    in_transaction([&] {
        wanted = last_purge("");
        if (wanted > 0) settled = last_settled_purge();
    });
    if (settled == 0) return wanted == 0;
    if (!attempt(bus, [] { run_utility("VACUUM (FULL) herald.scheduled"); })) return false;
    in_transaction([&] {
        with_owner_spi([&] {
            run_statement(psprintf("UPDATE herald.purge SET scheduled = false WHERE id <= %lld",
                                   static_cast<long long>(settled)),
                          SPI_OK_UPDATE);
        });
    });
    return settled == wanted;
}

}  // namespace herald
