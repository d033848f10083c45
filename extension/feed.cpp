// herald.feed: pages of envelopes, the way notifiers read the log.

#include "announce.h"
#include "check.h"
#include "read.h"
#include "rows.h"
#include "tier.h"

namespace herald {

namespace {

enum : int { kTopicsArgument, kAfterArgument, kRowsArgument, kBytesArgument, kFrameArgument };
enum : int { kPosResult, kTopicResult, kExpiresResult, kEnvelopeResult, kResults };

int positive_argument(FunctionCallInfo fcinfo, int argument, const char* name) {
    require_argument(!PG_ARGISNULL(argument), name);
    const int value = PG_GETARG_INT32(argument);
    if (value < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s is %d; it must be at least 1", name, value),
                        errhint("Give a limit above zero.")));
    return value;
}

SPIPlanPtr page_plan(bool all, const TopicFilter& filter) {
    static constinit KeptPlan everything{KeptPlan::Planned::kOnce};
    static constinit KeptPlan exact{KeptPlan::Planned::kOnce};
    static constinit KeptPlan pattern{KeptPlan::Planned::kOnce};
    if (all)
        return everything.get(
            "SELECT * FROM herald.messages WHERE pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4",
            {TEXTOID, INT8OID, INT8OID, INT8OID});
    if (filter.pattern)
        return pattern.get(
            "SELECT * FROM herald.messages WHERE herald.matches($1, topic)"
            " AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4",
            {TEXTOID, INT8OID, INT8OID, INT8OID});
    return exact.get(
        "SELECT * FROM herald.messages WHERE (topic, pos) > ($1, $2) AND (topic, pos) <= ($1, $3)"
        " AND pos > $2 AND pos <= $3 ORDER BY topic, pos LIMIT $4",
        {TEXTOID, INT8OID, INT8OID, INT8OID});
}

}  // namespace

HERALD_FUNCTION(herald_feed) {
    const bool all = PG_ARGISNULL(kTopicsArgument);
    TopicFilter filter{{}, true};
    if (!all) {
        filter = TopicFilter::of(text_view(PG_GETARG_DATUM(kTopicsArgument)));
        require_pattern(filter.text);
    }
    require_argument(!PG_ARGISNULL(kAfterArgument), "after");
    const std::int64_t after = PG_GETARG_INT64(kAfterArgument);
    require_position(after, "after");
    const int max_rows = positive_argument(fcinfo, kRowsArgument, "max_rows");
    const int max_bytes = positive_argument(fcinfo, kBytesArgument, "max_bytes");
    const int max_frame = positive_argument(fcinfo, kFrameArgument, "max_frame");
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "herald feed", ALLOCSET_DEFAULT_SIZES);

    std::int64_t upto = tier().horizon();
    with_fresh_spi([&] {
        std::int64_t bytes = 0;
        int rows = 0;
        Datum arguments[] = {PG_GETARG_DATUM(kTopicsArgument), Int64GetDatum(after),
                             Int64GetDatum(upto), Int64GetDatum(max_rows)};
        const char nulls[] = {all ? 'n' : ' ', ' ', ' ', ' ', '\0'};
        for_each_row(
            page_plan(all, filter), arguments, nulls, [&](HeapTuple tuple, TupleDesc description) {
                MemoryContext caller = MemoryContextSwitchTo(scratch);
                const Row row = Row::from_tuple(tuple, description);
                const std::string_view envelope = envelope_of(row, max_frame);
                bytes += static_cast<std::int64_t>(envelope.size());
                Datum values[kResults] = {row.values[kPos], row.values[kTopic], 0, 0};
                bool null_results[kResults] = {false, false, true, false};
                if (row.has(kExpiresAt)) {
                    const TimestampTz expires = DatumGetTimestampTz(row.values[kExpiresAt]);
                    null_results[kExpiresResult] = TIMESTAMP_NOT_FINITE(expires);
                    values[kExpiresResult] = Int64GetDatum(unix_us(expires));
                }
                values[kEnvelopeResult] = text_datum(envelope);
                tuplestore_putvalues(result->setResult, result->setDesc, values, null_results);
                const bool full = ++rows == max_rows || bytes >= max_bytes;
                if (full) upto = row.pos();
                MemoryContextSwitchTo(caller);
                MemoryContextReset(scratch);
                return !full;
            });
        Datum values[kResults] = {Int64GetDatum(upto), 0, 0, 0};
        bool null_results[kResults] = {false, true, true, true};
        tuplestore_putvalues(result->setResult, result->setDesc, values, null_results);
    });
    MemoryContextDelete(scratch);
    return 0;
}

}  // namespace herald
