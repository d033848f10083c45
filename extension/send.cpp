#include "send.h"

#include "check.h"
#include "identity.h"
#include "payload.h"
#include "schedule.h"
#include "scoped.h"
#include "settings.h"
#include "tier.h"

namespace herald {

namespace {

// The id of the message that used the same key in the same topic within the window, or 0. The
// caller holds the order, so nobody else is about to store one.
Datum find_by_idempotency_key(const Row& row) {
    static constinit KeptPlan plan;
    MemoryContext caller = CurrentMemoryContext;
    Datum found = 0;
    CommandCounterIncrement();  // this transaction's own messages count too
    const TimestampTz since = TimestampTzPlusMilliseconds(
        GetCurrentTimestamp(), -std::int64_t{1000} * setting_idempotency_window);
    with_fresh_spi([&] {
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
    return found != 0 ? found : find_scheduled_key(row, since);
}

// Lays the content of a message aside.
Payload payload_of_content(Row& row) {
    const bool is_json = DatumGetBool(row.values[kIsJson]);
    const Datum type = text_datum(is_json ? "application/json" : "text/plain; charset=utf-8");
    const Payload payload = store_payload(row.text(kContent), type, Compression::kZstd, nullptr);
    auto* id = static_cast<pg_uuid_t*>(palloc(sizeof(pg_uuid_t)));
    *id = payload.id;
    row.set(kPayload, UUIDPGetDatum(id));
    return payload;
}

}  // namespace

void Draft::set_deliver_at(TimestampTz at) {
    if (TIMESTAMP_NOT_FINITE(at))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("deliver_at is infinite"),
                        errhint("Give a point in time, or leave it out to deliver now.")));
    require_engine("deliver_at");
    if (at > GetCurrentTimestamp()) deliver_at = at;
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
    // For the check: a message must not expire before it is delivered.
    row.set(kAt,
            TimestampTzGetDatum(draft.deliver_at != 0 ? draft.deliver_at : GetCurrentTimestamp()));
    const auto set_expiry = [&] {
        if (draft.ttl == nullptr) return;
        const Datum from =
            draft.deliver_at != 0 ? TimestampTzGetDatum(draft.deliver_at) : row.values[kAt];
        row.set(kExpiresAt,
                DirectFunctionCall2(timestamptz_pl_interval, from, IntervalPGetDatum(draft.ttl)));
    };
    set_expiry();
    require_valid(row);

    tier().enter();
    if (row.has(kIdempotencyKey)) {
        tier().lock_key(row.text(kTopic), row.text(kIdempotencyKey));
        if (const Datum id = find_by_idempotency_key(row); id != 0) return id;
    }
    Payload payload{};
    if (row.has(kPayload)) {
        payload = sendable_payload(*DatumGetUUIDP(row.values[kPayload]));
    } else if (is_large(row.values[kContent])) {
        payload = payload_of_content(row);
    }
    const TimestampTz at = GetCurrentTimestamp();
    row.set(kAt, TimestampTzGetDatum(at));
    row.set(kId, new_message_id(at));
    set_expiry();
    if (row.has(kPayload)) {
        row.set(kContent, reference_to(payload, row.values[kId]));
        row.set(kIsJson, BoolGetDatum(true));
    }
    if (draft.deliver_at != 0) {
        schedule_message(row, draft.deliver_at);
        return row.values[kId];
    }
    row.set(kPos, Int64GetDatum(tier().next_position()));
    writer.append(row);
    tier().stored(row, true);
    return row.values[kId];
}

Datum send_one(Draft& draft) {
    PreventCommandIfReadOnly("sending a message");
    PreventCommandIfParallelMode("sending a message");
    tier().expect(1);  // not what a batch that failed has left to expect
    Datum id = 0;
    with_log_writer([&](LogWriter& writer) { id = send_draft(writer, draft); });
    if (draft.row.has(kPos)) tier().do_chores(draft.row.pos(), 1);
    return id;
}

}  // namespace herald
