// herald.scheduled has the columns of the log with deliver_at in the place of pos, so a Row carries
// both. bus->next_delivery is at or before the first committed deliver_at: whoever adds one lowers
// it after the commit, and only the dispatcher raises it. It is also where the dispatcher begins to
// look, so it never walks over the remains of what was delivered before, which an old snapshot may
// keep for hours.

#include "schedule.h"

#include "check.h"
#include "rows.h"
#include "scoped.h"
#include "send.h"
#include "tier.h"

namespace herald {

namespace {

constexpr int kAtOnce = 1000;

// The earliest deliver_at that this transaction added or gave back.
constinit TimestampTz touched = kNoDelivery;
// The dispatcher's own deletes tell it nothing new.
constinit bool delivering = false;

// The first deliver_at at or after `from`; kNoDelivery: none. Inside with_fresh_spi.
TimestampTz first_due(TimestampTz from) {
    static constinit KeptPlan plan;
    Datum values[] = {TimestampTzGetDatum(from)};
    run_read_only(plan.get("SELECT deliver_at FROM herald.scheduled WHERE deliver_at >= $1"
                           " ORDER BY deliver_at LIMIT 1",
                           {TIMESTAMPTZOID}),
                  values, nullptr, 1);
    if (SPI_processed == 0) return kNoDelivery;
    bool null = false;
    return DatumGetTimestampTz(
        SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
}

// Moves up to kAtOnce messages due in [from, now] into the log. Gives where to look next.
TimestampTz deliver_some(TimestampTz from, TimestampTz now) {
    static constinit KeptPlan plan;
    TimestampTz next = kNoDelivery;
    with_owner_spi([&] {
        Datum values[] = {TimestampTzGetDatum(from), TimestampTzGetDatum(now),
                          Int32GetDatum(kAtOnce)};
        // What somebody is cancelling at this moment comes back if that is rolled back.
        const int code = SPI_execute_plan(
            plan.get("WITH due AS (DELETE FROM herald.scheduled WHERE id IN"
                     " (SELECT s.id FROM herald.scheduled AS s WHERE s.deliver_at >= $1"
                     " AND s.deliver_at <= $2 ORDER BY s.deliver_at, s.id LIMIT $3"
                     " FOR UPDATE SKIP LOCKED) RETURNING *)"
                     " SELECT * FROM due ORDER BY deliver_at, id",
                     {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID}),
            values, nullptr, false, 0);
        if (code != SPI_OK_SELECT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
        const auto count = static_cast<std::int64_t>(SPI_processed);
        SPITupleTable* rows = SPI_tuptable;
        tier().expect(count);
        with_log_writer([&](LogWriter& writer) {
            for (std::int64_t i = 0; i < count; ++i) {
                Row row = Row::from_tuple(rows->vals[i], rows->tupdesc);
                next = DatumGetTimestampTz(row.values[kPos]);
                row.set(kPos, Int64GetDatum(tier().next_position()));
                row.set(kAt, TimestampTzGetDatum(GetCurrentTimestamp()));
                writer.append(row);
                tier().stored(row, true);
            }
        });
        if (count < kAtOnce) next = kNoDelivery;
    });
    return next;
}

}  // namespace

void schedule_message(const Row& row, TimestampTz deliver_at) {
    static constinit KeptPlan plan;
    constexpr Oid kTypes[kColumns] = {TIMESTAMPTZOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TEXTOID,
                                      TEXTOID,        TEXTOID, TEXTOID, JSONBOID,       TEXTOID,
                                      UUIDOID,        INT2OID, TEXTOID, TIMESTAMPTZOID, TEXTOID,
                                      TEXTOID,        BOOLOID, UUIDOID};
    Row scheduled = row;
    scheduled.set(kPos, TimestampTzGetDatum(deliver_at));
    char nulls[kColumns + 1] = {};
    for (int column = 0; column < kColumns; ++column)
        nulls[column] = scheduled.nulls[column] ? 'n' : ' ';
    with_owner_spi([&] {
        const int code = SPI_execute_plan(
            plan.get("INSERT INTO herald.scheduled VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
                     " $11, $12, $13, $14, $15, $16, $17, $18)",
                     kTypes),
            scheduled.values, nulls, false, 0);
        if (code != SPI_OK_INSERT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
    });
}

Datum find_scheduled_key(const Row& row, TimestampTz since) {
    static constinit KeptPlan plan;
    MemoryContext caller = CurrentMemoryContext;
    Datum found = 0;
    with_fresh_spi([&] {
        Datum values[] = {row.values[kIdempotencyKey], row.values[kTopic],
                          TimestampTzGetDatum(since)};
        run_read_only(plan.get("SELECT id FROM herald.scheduled WHERE idempotency_key = $1"
                               " AND topic = $2 AND at > $3 LIMIT 1",
                               {TEXTOID, TEXTOID, TIMESTAMPTZOID}),
                      values, nullptr, 1);
        if (SPI_processed == 0) return;
        bool null = false;
        const Datum id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
        MemoryContext spi = MemoryContextSwitchTo(caller);
        found = datumCopy(id, false, UUID_LEN);
        MemoryContextSwitchTo(spi);
    });
    return found;
}

void deliver_due(Bus& bus) {
    TimestampTz from = bus.next_delivery.exchange(kNoDelivery);
    const TimestampTz now = GetCurrentTimestamp();
    if (from > now) {
        lower_to(bus.next_delivery, from);
        return;
    }
    SetCurrentStatementStartTimestamp();
    StartTransactionCommand();
    delivering = true;
    TimestampTz next = deliver_some(from, now);
    delivering = false;
    if (next == kNoDelivery) with_fresh_spi([&] { next = first_due(now + 1); });
    // The worker's commits are asynchronous, but this one puts numbers into the log that readers
    // see: lost in a crash, the messages would come again with others.
    ForceSyncCommit();
    CommitTransactionCommand();
    lower_to(bus.next_delivery, next);
}

void look_for_scheduled(Bus& bus) {
    TimestampTz first = kNoDelivery;
    with_fresh_spi([&] { first = first_due(DT_NOBEGIN); });
    lower_to(bus.next_delivery, first);
}

bool schedule_is_touched() {
    return touched != kNoDelivery;
}

void schedule_transaction_ended() {
    if (touched == kNoDelivery) return;
    if (Bus* bus = known_bus(); bus != nullptr) {
        lower_to(bus->next_delivery, touched);
        ring(*bus);
    }
    touched = kNoDelivery;
}

HERALD_FUNCTION(herald_schedule_changed) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("this function is a trigger of the schedule"),
                        errhint("It cannot be called by itself.")));
    const auto* data = reinterpret_cast<const TriggerData*>(fcinfo->context);
    if (!delivering && engine_loaded()) {
        (void)live_bus();
        bool null = false;
        const Datum due =
            heap_getattr(data->tg_trigtuple, 1, RelationGetDescr(data->tg_relation), &null);
        touched = Min(touched, DatumGetTimestampTz(due));
    }
    return PointerGetDatum(nullptr);
}

HERALD_FUNCTION(herald_cancel) {
    static constinit KeptPlan plan;
    require_argument(!PG_ARGISNULL(0), "message");
    require_engine("cancel");
    bool cancelled = false;
    // Also what was scheduled after the caller's snapshot was taken.
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0)};
        const int code = SPI_execute_snapshot(
            plan.get("DELETE FROM herald.scheduled WHERE id = $1", {UUIDOID}), values, nullptr,
            GetActiveSnapshot(), InvalidSnapshot, false, true, 0);
        if (code != SPI_OK_DELETE) elog(ERROR, "herald: %s", SPI_result_code_string(code));
        cancelled = SPI_processed > 0;
    });
    PG_RETURN_BOOL(cancelled);
}

}  // namespace herald
