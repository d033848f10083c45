#include "read.h"

#include "check.h"
#include "core/topic.h"
#include "rows.h"
#include "tier.h"

namespace herald {

namespace {

// The same question asked of one topic (by index) and of a pattern (by position).
struct TopicPlans {
    KeptPlan exact{KeptPlan::Planned::kOnce};
    KeptPlan pattern{KeptPlan::Planned::kOnce};

    template <std::size_t N>
    SPIPlanPtr get(const TopicFilter& filter, const char* exact_sql, const char* pattern_sql,
                   const Oid (&types)[N]) {
        return filter.pattern ? pattern.get(pattern_sql, types) : exact.get(exact_sql, types);
    }
};

std::string_view topics_argument(FunctionCallInfo fcinfo, int argument) {
    require_argument(!PG_ARGISNULL(argument), "topics");
    const std::string_view topics = text_view(PG_GETARG_DATUM(argument));
    require_pattern(topics);
    return topics;
}

std::int64_t position_argument(FunctionCallInfo fcinfo, int argument) {
    require_argument(!PG_ARGISNULL(argument), "after");
    require_position(PG_GETARG_INT64(argument), "after");
    return PG_GETARG_INT64(argument);
}

int count_argument(FunctionCallInfo fcinfo, int argument, const char* name) {
    require_argument(!PG_ARGISNULL(argument), name);
    require_count(PG_GETARG_INT32(argument), name);
    return PG_GETARG_INT32(argument);
}

// Puts the messages of a plan into the set that a function returns, at most `max`. Gives their
// number. With `settled` not those of this transaction that may still move (the horizon passes a
// late one's).
std::int64_t return_rows(ReturnSetInfo* result, SPIPlanPtr plan, Datum* values, bool settled,
                         std::int64_t max = INT64_MAX) {
    const bool own = settled && tier().unsettled() > 0;
    std::int64_t rows = 0;
    for_each_row(plan, values, nullptr, [&](HeapTuple tuple, TupleDesc description) {
        bool null = false;
        if (own && tier().is_ours(DatumGetInt64(heap_getattr(tuple, kPos + 1, description, &null))))
            return true;
        tuplestore_puttuple(result->setResult, tuple);
        return ++rows < max;
    });
    return rows;
}

// Messages above some position that are gone.
struct Gap {
    std::int64_t to;  // up to here; 0: none are
    const char* why;
};

// Inside with_fresh_spi. A topic without a start of its own may have that of *, those which are not
// known any more; who begins at the beginning is not told of that.
Gap find_gap(const TopicFilter& filter, std::int64_t after) {
    static constinit TopicPlans plans;
    Datum values[] = {text_datum(filter.text), Int64GetDatum(after)};
    run_read_only(plans.get(filter,
                            "SELECT start_pos, why = 'retention' FROM herald.topic_start"
                            " WHERE topic = $1 AND start_pos > $2 UNION ALL"
                            " SELECT start_pos, why = 'retention' FROM herald.topic_start"
                            " WHERE topic = '*' AND start_pos > $2 AND $2 > 0 LIMIT 1",
                            "SELECT start_pos, why = 'retention' FROM herald.topic_start"
                            " WHERE (herald.matches($1, topic) OR topic = '*' AND $2 > 0)"
                            " AND start_pos > $2 ORDER BY start_pos DESC LIMIT 1",
                            {TEXTOID, INT8OID}),
                  values, nullptr, 1);
    if (SPI_processed == 0) return {};
    HeapTuple tuple = SPI_tuptable->vals[0];
    TupleDesc description = SPI_tuptable->tupdesc;
    bool null = false;
    return {DatumGetInt64(SPI_getbinval(tuple, description, 1, &null)),
            DatumGetBool(SPI_getbinval(tuple, description, 2, &null)) ? "retention" : "dropped"};
}

// A notice with SQLSTATE 01R01 for who resumes where messages are gone.
void tell_of_gap(const TopicFilter& filter, std::int64_t after, const Gap& gap) {
    ereport(NOTICE, (errcode(MAKE_SQLSTATE('0', '1', 'R', '0', '1')),
                     errmsg("messages of \"%.*s\" above position %lld are gone, up to %lld (%s)",
                            static_cast<int>(filter.text.size()), filter.text.data(),
                            static_cast<long long>(after), static_cast<long long>(gap.to), gap.why),
                     errhint("Reading goes on with those that are kept.")));
}

ReturnSetInfo* result_of(FunctionCallInfo fcinfo) {
    return reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
}

}  // namespace

TopicFilter TopicFilter::of(std::string_view topics) {
    return {topics, is_pattern(topics)};
}

bool find_message(Datum id, Row* row) {
    static constinit KeptPlan plan;
    MemoryContext caller = CurrentMemoryContext;
    bool found = false;
    with_fresh_spi([&] {
        Datum values[] = {id};
        run_read_only(plan.get("SELECT * FROM herald.messages WHERE id = $1", {UUIDOID}), values,
                      nullptr, 1);
        if (SPI_processed == 0) return;
        MemoryContext spi = MemoryContextSwitchTo(caller);
        *row = Row::from_tuple(heap_copytuple(SPI_tuptable->vals[0]),
                               CreateTupleDescCopy(SPI_tuptable->tupdesc));
        MemoryContextSwitchTo(spi);
        found = true;
    });
    return found;
}

HERALD_FUNCTION(herald_horizon) {
    PG_RETURN_INT64(tier().horizon());
}

std::int64_t read_messages(const TopicFilter& filter, std::int64_t after, std::int64_t horizon,
                           int max, ReturnSetInfo* result, bool tell) {
    static constinit TopicPlans plans;
    std::int64_t rows = 0;
    Gap gap = {};
    with_fresh_spi([&] {
        if (tell && after > 0) gap = find_gap(filter, after);
        Datum values[] = {text_datum(filter.text), Int64GetDatum(after), Int64GetDatum(horizon),
                          Int64GetDatum(max + tier().unsettled())};
        SPIPlanPtr plan = plans.get(filter,
                                    "SELECT * FROM herald.messages WHERE (topic, pos) > ($1, $2)"
                                    " AND (topic, pos) <= ($1, $3) AND pos > $2 AND pos <= $3"
                                    " ORDER BY topic, pos LIMIT $4",
                                    "SELECT * FROM herald.messages WHERE herald.matches($1, topic)"
                                    " AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4",
                                    {TEXTOID, INT8OID, INT8OID, INT8OID});
        rows = return_rows(result, plan, values, true, max);
    });
    if (gap.to > 0) tell_of_gap(filter, after, gap);
    return rows;
}

HERALD_FUNCTION(herald_read) {
    const TopicFilter filter = TopicFilter::of(topics_argument(fcinfo, 0));
    const std::int64_t after = position_argument(fcinfo, 1);
    const int max = count_argument(fcinfo, 2, "max");
    InitMaterializedSRF(fcinfo, 0);
    (void)read_messages(filter, after, tier().horizon(), max, result_of(fcinfo), true);
    return 0;
}

HERALD_FUNCTION(herald_tail) {
    static constinit TopicPlans plans;
    const TopicFilter filter = TopicFilter::of(topics_argument(fcinfo, 0));
    const int last = count_argument(fcinfo, 1, "last");
    InitMaterializedSRF(fcinfo, 0);
    const std::int64_t horizon = tier().horizon();
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0), Int64GetDatum(horizon), Int64GetDatum(last)};
        (void)return_rows(
            result_of(fcinfo),
            plans.get(filter,
                      "SELECT * FROM (SELECT * FROM herald.messages WHERE (topic, pos) > ($1, 0)"
                      " AND (topic, pos) <= ($1, $2) AND pos <= $2"
                      " ORDER BY topic DESC, pos DESC LIMIT $3) AS newest ORDER BY pos",
                      "SELECT * FROM (SELECT * FROM herald.messages"
                      " WHERE herald.matches($1, topic) AND pos <= $2"
                      " ORDER BY pos DESC LIMIT $3) AS newest ORDER BY pos",
                      {TEXTOID, INT8OID, INT8OID}),
            values, true);
    });
    return 0;
}

HERALD_FUNCTION(herald_conversation) {
    static constinit KeptPlan plan;
    require_argument(!PG_ARGISNULL(0), "conversation");
    InitMaterializedSRF(fcinfo, 0);
    const std::int64_t horizon = tier().horizon();
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0), Int64GetDatum(horizon)};
        (void)return_rows(result_of(fcinfo),
                          plan.get("SELECT * FROM herald.messages WHERE conversation = $1"
                                   " AND pos <= $2 ORDER BY pos",
                                   {TEXTOID, INT8OID}),
                          values, true);
    });
    return 0;
}

HERALD_FUNCTION(herald_message_by_id) {
    static constinit KeptPlan plan;
    require_argument(!PG_ARGISNULL(0), "id");
    InitMaterializedSRF(fcinfo, 0);
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0)};
        (void)return_rows(result_of(fcinfo),
                          plan.get("SELECT * FROM herald.messages WHERE id = $1", {UUIDOID}),
                          values, false);
    });
    return 0;
}

HERALD_FUNCTION(herald_tail_start) {
    static constinit TopicPlans plans;
    const TopicFilter filter = TopicFilter::of(topics_argument(fcinfo, 0));
    const int last = count_argument(fcinfo, 1, "last");
    std::int64_t start = 0;
    const std::int64_t horizon = tier().horizon();
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0), Int64GetDatum(horizon), Int64GetDatum(last)};
        run_read_only(
            plans.get(filter,
                      "SELECT min(pos) - 1 FROM (SELECT pos FROM herald.messages"
                      " WHERE (topic, pos) > ($1, 0) AND (topic, pos) <= ($1, $2) AND pos <= $2"
                      " ORDER BY topic DESC, pos DESC LIMIT $3) AS newest",
                      "SELECT min(pos) - 1 FROM (SELECT pos FROM herald.messages"
                      " WHERE herald.matches($1, topic) AND pos <= $2"
                      " ORDER BY pos DESC LIMIT $3) AS newest",
                      {TEXTOID, INT8OID, INT8OID}),
            values, nullptr, 1);
        bool null = false;
        const Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
        start = null ? horizon : DatumGetInt64(value);
    });
    PG_RETURN_INT64(start);
}

HERALD_FUNCTION(herald_last_position) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    std::int64_t last = 0;
    with_fresh_spi([&] {
        Datum values[] = {PG_GETARG_DATUM(0)};
        run_read_only(plan.get("SELECT pos FROM herald.message WHERE (topic, pos) > ($1, 0)"
                               " AND (topic, pos) <= ($1, 9007199254740991)"
                               " ORDER BY topic DESC, pos DESC LIMIT 1",
                               {TEXTOID}),
                      values, nullptr, 1);
        if (SPI_processed == 0) return;
        bool null = false;
        last = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    });
    PG_RETURN_INT64(last);
}

HERALD_FUNCTION(herald_gap) {
    const TopicFilter filter = TopicFilter::of(topics_argument(fcinfo, 0));
    const std::int64_t after = position_argument(fcinfo, 1);
    TupleDesc description;
    if (get_call_result_type(fcinfo, nullptr, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "herald.gap must return a row");
    const std::int64_t horizon = tier().horizon();
    // A standby may be behind the server that `after` was seen on.
    Gap gap = {horizon, "reset"};
    if (after <= horizon || RecoveryInProgress())
        with_fresh_spi([&] { gap = find_gap(filter, after); });
    Datum values[2] = {Int64GetDatum(gap.to), 0};
    bool nulls[2] = {gap.to == 0, gap.to == 0};
    if (gap.to > 0) values[1] = text_datum(gap.why);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(description, values, nulls)));
}

HERALD_FUNCTION(herald_matches) {
    PG_RETURN_BOOL(topic_matches(text_view(PG_GETARG_DATUM(0)), text_view(PG_GETARG_DATUM(1))));
}

}  // namespace herald
