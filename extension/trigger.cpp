// Triggers of the log itself.
//   herald.message   AFTER INSERT: rows that arrive by plain INSERT or COPY are checked and
//                    announced like a send. (LogWriter bypasses it: send does both by itself.)
//   herald.restore   BEFORE INSERT: what pg_dump wrote goes back to its old position in the log,
//                    neither checked nor announced again; the table itself stays empty. A row
//                    without a topic is the counter.

#include "announce.h"
#include "books.h"
#include "check.h"
#include "log.h"
#include "register.h"
#include "scoped.h"
#include "tier.h"

namespace herald {

namespace {

const TriggerData* trigger_data(FunctionCallInfo fcinfo) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("this function is a trigger of the log"),
                        errhint("It cannot be called by itself.")));
    return reinterpret_cast<const TriggerData*>(fcinfo->context);
}

bool is_expired(const Row& row) {
    return row.has(kExpiresAt) &&
           DatumGetTimestampTz(row.values[kExpiresAt]) <= GetCurrentTimestamp();
}

// A reference whose bytes nobody could read would stop the counting.
void require_reference(const Row& row) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    bool counted = false;
    with_owner_spi([&] {
        Datum values[] = {row.values[kContent], row.values[kPayload]};
        run_read_only(
            plan.get("SELECT WHERE herald.content_bytes($1, $2) >= 0", {TEXTOID, UUIDOID}), values,
            nullptr, 1);
        counted = SPI_processed > 0;
    });
    if (counted) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("the content of message %lld does not say how many bytes its payload has",
                    static_cast<long long>(row.pos())),
             errhint("{\"bytes\":…,\"checksum\":…,\"content_type\":…,\"href\":…}")));
}

}  // namespace

HERALD_FUNCTION(herald_log_inserted) {
    const TriggerData* data = trigger_data(fcinfo);
    const Row row = Row::from_tuple(data->tg_trigtuple, RelationGetDescr(data->tg_relation));
    if (!tier().is_ours(row.pos()))
        ereport(ERROR, (errcode(ERRCODE_GENERATED_ALWAYS),
                        errmsg("position %lld was not handed out to this transaction",
                               static_cast<long long>(row.pos())),
                        errhint("Leave pos out: herald gives each message its position.")));
    if (row.has(kPayload) && !tier().is_moving())
        ereport(ERROR, (errcode(ERRCODE_GENERATED_ALWAYS),
                        errmsg("a payload cannot be sent by INSERT or COPY"),
                        errhint("Use herald.send_payload.")));
    require_valid(row);
    require_json(row);
    tier().stored(row, !is_expired(row));
    tier().do_chores(row.pos(), 1);
    return PointerGetDatum(nullptr);
}

HERALD_FUNCTION(herald_log_restored) {
    const TriggerData* data = trigger_data(fcinfo);
    const Row row = Row::from_tuple(data->tg_trigtuple, RelationGetDescr(data->tg_relation));
    const bool is_counter = row.text(kTopic).empty();
    if (row.has(kPayload)) require_reference(row);
    // Not before ALTER EXTENSION UPDATE from 0.1.0, whose dumps set the counter by themselves.
    const bool noted = registers_exist();
    // This takes the books: until the end of the transaction no segment is removed.
    if (noted) note_restored(row.pos(), is_counter ? row.pos() - 1 : row.pos());
    require_attached(segment_at(row.pos()));
    if (!is_counter) with_log_writer([&](LogWriter& writer) { writer.append(row); });
    if (noted) tier().restored(is_counter ? row.pos() : row.pos() + 1);
    return PointerGetDatum(nullptr);
}

HERALD_FUNCTION(herald_require_topic) {
    require_argument(!PG_ARGISNULL(0), "topic");
    require_topic(text_view(PG_GETARG_DATUM(0)));
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_require_pattern) {
    require_argument(!PG_ARGISNULL(0), "topics");
    require_pattern(text_view(PG_GETARG_DATUM(0)));
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_make_segment) {
    (void)segment_at(PG_GETARG_INT64(0));
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_begin_segment_at_commit) {
    const std::int64_t pos = PG_GETARG_INT64(0);
    tier().administer();
    (void)segment_at(pos);
    tier().move_counter_at_commit(pos);
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_segment_width) {
    PG_RETURN_INT64(kSegmentWidth);
}

HERALD_FUNCTION(herald_announce_reset) {
    announce_reset();
    PG_RETURN_VOID();
}

}  // namespace herald
