// herald.wait_for: sleeps until there is a message, woken by the dispatcher whenever the horizon
// has moved. Looks into the log only if the topic's bucket says that something came.
//
// While it sleeps it holds no snapshot of its own. The statement's snapshot would still keep vacuum
// from what has died since; if the statement is nothing but a call of this function, nobody will
// look through that snapshot again, and it is let go as well, unless the transaction has others
// (those of open cursors, an exported one).

#include "check.h"
#include "core/topic.h"
#include "engine.h"
#include "read.h"
#include "rows.h"
#include "scoped.h"
#include "tier.h"

namespace herald {

namespace {

constexpr int kMaxMessages = 100;

// Microseconds, not negative.
std::int64_t timeout_argument(FunctionCallInfo fcinfo, int argument) {
    require_argument(!PG_ARGISNULL(argument), "timeout");
    const Interval* interval = PG_GETARG_INTERVAL_P(argument);
    const double microseconds =
        static_cast<double>(interval->time) +
        (static_cast<double>(interval->day) + 30.0 * static_cast<double>(interval->month)) *
            static_cast<double>(USECS_PER_DAY);
    constexpr double kMost = 366.0 * static_cast<double>(USECS_PER_DAY);
    if (microseconds < 0 || microseconds > kMost)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("timeout is %s; it must be from 0 to a year",
                               DatumGetCString(
                                   DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)))),
                        errhint("wait_for('agent:7:inbox', 0, '30 seconds')")));
    return static_cast<std::int64_t>(microseconds);
}

// Whether the running statement is SELECT … FROM herald.wait_for(…) with constants and no more.
bool statement_is_only_this(Oid function) {
    if (ActivePortal == nullptr || IsolationUsesXactSnapshot()) return false;
    if (list_length(ActivePortal->stmts) != 1) return false;
    const auto* planned = linitial_node(PlannedStmt, ActivePortal->stmts);
    if (planned->commandType != CMD_SELECT || planned->subplans != NIL ||
        planned->planTree == nullptr || !IsA(planned->planTree, FunctionScan))
        return false;
    const auto* scan = castNode(FunctionScan, planned->planTree);
    if (list_length(scan->functions) != 1 || scan->scan.plan.qual != NIL) return false;
    ListCell* cell = nullptr;
    foreach (cell, scan->scan.plan.targetlist) {
        if (!IsA(lfirst_node(TargetEntry, cell)->expr, Var)) return false;
    }
    const Node* expression = linitial_node(RangeTblFunction, scan->functions)->funcexpr;
    if (!IsA(expression, FuncExpr)) return false;
    const auto* call = reinterpret_cast<const FuncExpr*>(expression);
    if (call->funcid != function) return false;
    foreach (cell, call->args) {
        const auto* argument = static_cast<const Node*>(lfirst(cell));
        if (!IsA(argument, Const) && !IsA(argument, Param)) return false;
    }
    return true;
}

bool has_something_new(const Bus& bus, const TopicFilter& filter, std::int64_t seen) {
    return filter.pattern || bus.buckets[bucket_of(filter.text)].load() > seen;
}

}  // namespace

HERALD_FUNCTION(herald_wait_for) {
    require_argument(!PG_ARGISNULL(0), "topics");
    const std::string_view topics = text_view(PG_GETARG_DATUM(0));
    require_pattern(topics);
    const TopicFilter filter = TopicFilter::of(topics);
    require_argument(!PG_ARGISNULL(1), "after");
    const std::int64_t after = PG_GETARG_INT64(1);
    require_position(after, "after");
    const std::int64_t until = monotonic_us() + timeout_argument(fcinfo, 2);
    require_engine("wait_for");
    if (RecoveryInProgress())
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("wait_for does not work on a standby"),
                        errhint("Wait on the primary, or read() here.")));
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    const bool lets_go = statement_is_only_this(fcinfo->flinfo->fn_oid);

    // A bus that is not alive comes to life with its dispatcher, which this asks for.
    Bus* bus = find_live_bus();
    if (bus == nullptr) {
        PreventCommandIfReadOnly("waiting before the first message");
        bus = &live_bus();
        ring(*bus);
    }
    std::int64_t seen = -1;
    ConditionVariablePrepareToSleep(&bus->advanced);
    for (;;) {
        const std::int64_t horizon = tier().horizon();
        const bool looks = seen < 0 || has_something_new(*bus, filter, seen);
        if (looks) {
            if (read_messages(filter, after, horizon, kMaxMessages, result, seen < 0) > 0) break;
        }
        seen = Max(seen, horizon);
        const std::int64_t left = (until - monotonic_us() + 999) / 1000;
        if (left <= 0) break;
        // If reading had to wait for a lock, that may have taken the wake-up away.
        if (looks && tier().horizon() > seen) continue;
        if (find_bus(MyDatabaseId, bus->log.load()) != bus || bus->gone.load())
            ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                            errmsg("pg_herald was dropped while waiting"),
                            errhint("CREATE EXTENSION pg_herald")));
        if (lets_go) {
            InvalidateCatalogSnapshot();
            // The statement's own is there once.
            if (ThereAreNoPriorRegisteredSnapshots()) MyProc->xmin = InvalidTransactionId;
        }
        (void)ConditionVariableTimedSleep(&bus->advanced, static_cast<long>(Min(left, 3'600'000)),
                                          PG_WAIT_EXTENSION);
    }
    ConditionVariableCancelSleep();
    return 0;
}

}  // namespace herald
