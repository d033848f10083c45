#include "send.h"

#include "announce.h"
#include "check.h"
#include "identity.h"
#include "position.h"
#include "scoped.h"
#include "settings.h"

namespace herald {

namespace {

// Every so many positions the sender folds the counters and looks whether a segment is needed, so
// that reading the counters never scans more than this many rows.
constexpr std::int64_t kChoreInterval = 1024;

// The id of the message that used the same key in the same topic within the window, or 0. The
// caller holds the order, so nobody else is about to store one.
Datum find_by_idempotency_key(const Row& row) {
    static constinit KeptPlan plan;
    MemoryContext caller = CurrentMemoryContext;
    Datum found = 0;
    CommandCounterIncrement();  // this transaction's own messages count too
    with_fresh_spi([&] {
        const TimestampTz since = TimestampTzPlusMilliseconds(
            GetCurrentTimestamp(), -std::int64_t{1000} * setting_idempotency_window);
        Datum values[] = {row.values[kIdempotencyKey], row.values[kTopic],
                          TimestampTzGetDatum(since)};
        run_read_only(plan.get("SELECT m.id FROM herald.message AS m"
                               " WHERE m.idempotency_key = $1 AND m.topic = $2 AND m.at > $3"
                               " AND NOT EXISTS (SELECT FROM herald.topic_start AS s"
                               " WHERE s.topic = m.topic AND s.start_pos >= m.pos)"
                               " ORDER BY m.pos LIMIT 1",
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

}  // namespace

void do_chores(std::int64_t pos, int sent) {
    if (pos % kChoreInterval >= sent) return;
    if (pos % kSegmentWidth > kSegmentWidth / 2) make_segment_ahead(pos);
    fold_counters();
}

void set_priority(Row& row, std::int64_t priority) {
    require_priority(priority);
    row.set(kPriority, Int16GetDatum(static_cast<std::int16_t>(priority)));
}

void set_payload(Row& row, Jsonb* payload) {
    row.set_text(kContent, JsonbToCString(nullptr, &payload->root, VARSIZE(payload)));
    row.set(kIsJson, BoolGetDatum(true));
}

Datum route(const Row& row) {
    if (row.has(kTopic)) return row.values[kTopic];
    const auto named = [&](const char* format, const char* argument, Column column) {
        const std::string_view name = row.text(column);
        if (name.empty())
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is empty", argument),
                     errhint("Leave it NULL, or name a %s.", argument)));
        return PointerGetDatum(
            cstring_to_text(psprintf(format, static_cast<int>(name.size()), name.data())));
    };
    if (row.has(kRecipient)) return named("agent:%.*s:inbox", "recipient", kRecipient);
    if (row.has(kWorkspace)) return named("workspace:%.*s", "workspace", kWorkspace);
    return text_datum("broadcast");
}

Datum send_draft(LogWriter& writer, Draft& draft) {
    Row& row = draft.row;
    row.set(kTopic, route(row));
    const TimestampTz drafted = GetCurrentTimestamp();
    row.set(kAt, TimestampTzGetDatum(drafted));
    const auto set_expiry = [&] {
        if (draft.ttl != nullptr)
            row.set(kExpiresAt, DirectFunctionCall2(timestamptz_pl_interval, row.values[kAt],
                                                    IntervalPGetDatum(draft.ttl)));
    };
    set_expiry();
    require_valid(row);

    take_order();
    if (row.has(kIdempotencyKey)) {
        if (const Datum id = find_by_idempotency_key(row); id != 0) return id;
    }
    const TimestampTz at = GetCurrentTimestamp();
    row.set(kPos, Int64GetDatum(next_position()));
    row.set(kAt, TimestampTzGetDatum(at));
    row.set(kId, new_message_id(at));
    set_expiry();
    writer.append(row);
    announce(row);
    return row.values[kId];
}

Datum send_one(Draft& draft) {
    PreventCommandIfReadOnly("sending a message");
    PreventCommandIfParallelMode("sending a message");
    Datum id = 0;
    with_log_writer([&](LogWriter& writer) { id = send_draft(writer, draft); });
    if (draft.row.has(kPos)) do_chores(draft.row.pos(), 1);
    return id;
}

void fold_counters() {
    // With one old snapshot for the whole transaction there is nothing new to see.
    if (IsolationUsesXactSnapshot()) return;
    as_owner([] {
        if (SPI_connect() != SPI_OK_CONNECT) elog(ERROR, "herald: SPI_connect failed");
        run_statement("SELECT herald.fold()", SPI_OK_SELECT);
        SPI_finish();
    });
}

}  // namespace herald
