// herald.feed: pages of envelopes, the way notifiers read the log.

#include "announce.h"
#include "check.h"
#include "read.h"
#include "rows.h"
#include "tier.h"

namespace herald {

namespace {

enum : int { kTopicsArgument, kAfterArgument, kRowsArgument, kBytesArgument, kFrameArgument };
enum : int { kPosResult, kTopicResult, kExpiresResult, kEnvelopeResult, kLostResult, kResults };

// Of more topics it is not said one by one that they have lost messages.
constexpr int kMostLost = 1000;

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

// Tells of the topics whose start has moved into (after, upto]: the last message that is gone stood
// there, and under the snapshot of the page it was not to be read. "*" stands for any topic, here
// as in the table.
void put_lost(ReturnSetInfo* result, std::int64_t after, std::int64_t upto) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    Datum arguments[] = {Int64GetDatum(after), Int64GetDatum(upto), Int32GetDatum(kMostLost + 1)};
    run_read_only(plan.get("SELECT start_pos, topic, why FROM herald.topic_start"
                           " WHERE start_pos > $1 AND start_pos <= $2"
                           " ORDER BY start_pos DESC LIMIT $3",
                           {INT8OID, INT8OID, INT4OID}),
                  arguments, nullptr, 0);
    const bool too_many = SPI_processed > kMostLost;
    for (std::uint64_t i = 0; i < (too_many ? 1 : SPI_processed); ++i) {
        const auto column = [&](int number) {
            bool null = false;
            return SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, number, &null);
        };
        Datum values[kResults] = {column(1), too_many ? text_datum("*") : column(2), 0, 0,
                                  column(3)};
        bool nulls[kResults] = {false, false, true, true, false};
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
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
                Datum values[kResults] = {row.values[kPos], row.values[kTopic], 0, 0, 0};
                bool null_results[kResults] = {false, false, true, false, true};
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
        if (all) put_lost(result, after, upto);
        Datum values[kResults] = {Int64GetDatum(upto), 0, 0, 0, 0};
        bool null_results[kResults] = {false, true, true, true, true};
        tuplestore_putvalues(result->setResult, result->setDesc, values, null_results);
    });
    MemoryContextDelete(scratch);
    return 0;
}

}  // namespace herald
