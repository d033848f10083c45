// One round: forget that it was rung, compute the horizon (which overtakes what is late), wake who
// waits for it, announce what lies between the last announcement and it. A sender clears its hold,
// then rings; the dispatcher forgets the ring, then reads the holds: so either this round sees the
// sender's messages decided, or the ring comes after and there is another round.
//
// Its place is bus->announced_to, moved in the commit of the announcing transaction. It outlives
// the worker. After a crash of the server all listeners are gone, and it begins at the first number
// of the new life, before which nobody who is connected now can have missed anything.
//
// Announced is what somebody listens to: the doorbell needs no row to be read; of topics with a
// listener, those are read whose bucket says that something was committed since. Who listens is
// looked up after the horizon was computed: so what lies above a horizon that a session reads when
// its LISTEN has been answered, it will hear. Of what lies below it may hear some.

#include "announce.h"
#include "compat.h"
#include "engine.h"
#include "keeper.h"
#include "launcher.h"
#include "listeners.h"
#include "log.h"
#include "register.h"
#include "rows.h"
#include "schedule.h"
#include "scoped.h"
#include "send.h"
#include "settings.h"
#include "tier.h"
#include "worker.h"

extern "C" PGDLLEXPORT void herald_dispatcher_main(Datum argument);

namespace herald {

namespace {

// Announced in one transaction at most.
constexpr int kRowsAtOnce = 4096;
constexpr std::int64_t kBytesAtOnce = 1 << 20;
// With more topics than this the log is read instead of the topics.
constexpr int kMostTopics = 64;
// Rounds begin at least this far apart (microseconds): what comes meanwhile goes together.
constexpr std::int64_t kSpacing = 1000;
// A standby learns of the horizon at least so often (milliseconds).
constexpr std::int64_t kStandbyMs = 5;
constexpr std::int64_t kRetryMs = 1000;

constinit Bus* bus = nullptr;
constinit std::int64_t announcing_to = 0;  // in the transaction under way; 0: none
constinit std::int64_t announcing_by = 0;  // by so many NOTIFYs

ListenedChannels listened = {};
constinit MemoryContext listened_memory = nullptr;
constinit std::int64_t listened_version = -1;

constinit std::int64_t told_horizon = 0;     // who waits was woken for this
constinit std::int64_t standby_horizon = 0;  // in the register
constinit std::int64_t standby_at = 0;       // monotonic
constinit bool queue_full = false;
// What is announced in one transaction at most: less than kRowsAtOnce when the queue was full.
constinit int most_rows = kRowsAtOnce;
constinit std::int64_t segment_looked_for = -1;
constinit std::int64_t rated_at = 0;
constinit std::int64_t rated_positions = 0;
constinit std::int64_t rated_notifications = 0;

void refresh_listened() {
    const std::int64_t version = listeners_version();
    if (version == listened_version) return;
    MemoryContextReset(listened_memory);
    MemoryContext caller = MemoryContextSwitchTo(listened_memory);
    listened = listened_channels();
    MemoryContextSwitchTo(caller);
    listened_version = version;
}

bool has_news(const Channel& channel, std::int64_t announced) {
    return bus->buckets[channel.bucket].load() > announced;
}

// Which rows have to be looked at.
struct Wanted {
    bool whole_log;
    int count;  // of topics
    Datum topics[kMostTopics];
};

Wanted wanted_above(std::int64_t announced) {
    Wanted wanted = {};
    if (!setting_notify) return wanted;
    wanted.whole_log = listened.everything || listened.hashed;
    for (int i = 0; i < listened.count && !wanted.whole_log; ++i) {
        if (!has_news(listened.channels[i], announced)) continue;
        if (wanted.count < kMostTopics)
            wanted.topics[wanted.count++] = text_datum(listened.channels[i].name);
        else
            wanted.whole_log = true;
    }
    return wanted;
}

// The rows of (from, upto], at most most_rows: parameters 1 to 3; 4 says of which topics. See
// read.h for the condition on one.
SPIPlanPtr plan_for(const Wanted& wanted, Datum* topics) {
    static constinit KeptPlan whole_log{KeptPlan::Planned::kOnce};
    static constinit KeptPlan one_topic{KeptPlan::Planned::kOnce};
    static constinit KeptPlan of_topics{KeptPlan::Planned::kOnce};
    if (wanted.whole_log)
        return whole_log.get(
            "SELECT * FROM herald.messages WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3",
            {INT8OID, INT8OID, INT4OID});
    if (wanted.count == 1) {
        *topics = wanted.topics[0];
        return one_topic.get(
            "SELECT * FROM herald.messages WHERE (topic, pos) > ($4, $1)"
            " AND (topic, pos) <= ($4, $2) AND pos > $1 AND pos <= $2"
            " ORDER BY topic, pos LIMIT $3",
            {INT8OID, INT8OID, INT4OID, TEXTOID});
    }
    *topics = PointerGetDatum(construct_array(const_cast<Datum*>(wanted.topics), wanted.count,
                                              TEXTOID, -1, false, TYPALIGN_INT));
    return of_topics.get(
        "SELECT m.* FROM pg_catalog.unnest($4) AS t (name), LATERAL (SELECT * FROM herald.messages"
        " WHERE (topic, pos) > (t.name, $1) AND (topic, pos) <= (t.name, $2)"
        " AND pos > $1 AND pos <= $2 ORDER BY topic, pos LIMIT $3) AS m"
        " ORDER BY m.pos LIMIT $3",
        {INT8OID, INT8OID, INT4OID, TEXTARRAYOID});
}

// Announces rows of (from, upto]; gives how far it got.
std::int64_t announce_rows(const Wanted& wanted, std::int64_t from, std::int64_t upto,
                           std::int64_t* announced) {
    Datum values[] = {Int64GetDatum(from), Int64GetDatum(upto), Int32GetDatum(most_rows), 0};
    SPIPlanPtr plan = plan_for(wanted, &values[3]);
    int rows = 0;
    std::int64_t bytes = 0;
    for_each_row(plan, values, nullptr, [&](HeapTuple tuple, TupleDesc description) {
        const Row row = Row::from_tuple(tuple, description);
        const char* channel = channel_of(row.text(kTopic));
        if (listened.has(channel)) {
            bytes += announce_on(channel, row);
            ++*announced;
        }
        if (++rows < most_rows && bytes < kBytesAtOnce) return true;
        upto = row.pos();
        return false;
    });
    return upto;
}

void on_transaction(XactEvent event, void*) {
    if (event == XACT_EVENT_COMMIT && announcing_to > 0) {
        bus->notifications += announcing_by;  // who sees the one sees the other
        bus->announced_to = announcing_to;
    }
    if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT) announcing_to = 0;
}

// In a transaction: puts the horizon into the WAL, after all that it says is decided.
void tell_standby() {
    if (!XLogStandbyInfoActive() || told_horizon <= standby_horizon) return;
    write_register(kHorizonRegister, {told_horizon, true});
    standby_horizon = told_horizon;
    standby_at = monotonic_us();
}

// One transaction's worth.
void announce_some(std::int64_t upto) {
    const std::int64_t from = bus->announced_to.load();
    std::int64_t notifications = 0;
    in_transaction([&] {
        const Wanted wanted = wanted_above(from);
        if (wanted.whole_log || wanted.count > 0)
            with_fresh_spi([&] { upto = announce_rows(wanted, from, upto, &notifications); });
        if (setting_notify && (listened.doorbell || listened.everything)) {
            ring_doorbell_at(upto);
            ++notifications;
        }
        announcing_to = upto;
        announcing_by = notifications;
    });
}

// What an attempt that found no room has left in the queue stays until all listeners have read
// beyond it, and PostgreSQL wakes them only when a NOTIFY commits: which none can, as long as it is
// full. All backends are asked to look; those that don't listen do nothing.
void wake_listeners() {
    for (std::uint32_t i = 0; i < ProcGlobal->allProcCount; ++i) {
        const PGPROC& process = ProcGlobal->allProcs[i];
        if (process.pid != 0 && process.pid != MyProcPid && OidIsValid(process.databaseId))
            signal_backend(process.pid, PROCSIG_NOTIFY_INTERRUPT);
    }
}

// The queue of NOTIFY is full while a listener sleeps in a transaction. Whoever sends must not feel
// it: the place is kept, and it is tried again, with one row first: all that would be announced at
// once may be more than the whole queue has room for.
void announce_to(std::int64_t upto) {
    // PostgreSQL gives back what all listeners have read only after a NOTIFY that found room, or
    // when it is asked how full the queue is.
    if (queue_full)
        in_transaction([] { (void)DirectFunctionCall1(pg_notification_queue_usage, 0); });
    MemoryContext caller = CurrentMemoryContext;
    volatile bool failed = false;
    PG_TRY();
    {
        while (bus->announced_to.load() < upto) {
            announce_some(upto);
            most_rows = Min(2 * most_rows, kRowsAtOnce);
        }
    }
    PG_CATCH();
    {
        if (geterrcode() != ERRCODE_PROGRAM_LIMIT_EXCEEDED) PG_RE_THROW();
        failed = true;
    }
    PG_END_TRY();
    if (!failed) {
        queue_full = false;
        return;
    }
    MemoryContextSwitchTo(caller);
    FlushErrorState();
    AbortCurrentTransaction();
    if (!queue_full)
        ereport(WARNING,
                (errmsg("herald cannot announce: the queue of NOTIFY is full"),
                 errhint("A session that LISTENs sleeps in a transaction. Messages are stored, and "
                         "will be announced when it ends.")));
    queue_full = true;
    most_rows = 1;
    wake_listeners();
}

bool something_to_announce(std::int64_t horizon) {
    const std::int64_t announced = bus->announced_to.load();
    if (announced >= horizon) return false;
    refresh_listened();
    if (!setting_notify) return false;
    if (listened.everything || listened.hashed || listened.doorbell) return true;
    for (int i = 0; i < listened.count; ++i) {
        if (has_news(listened.channels[i], announced)) return true;
    }
    return false;
}

bool standby_is_due(std::int64_t now) {
    return XLogStandbyInfoActive() && told_horizon > standby_horizon &&
           now - standby_at >= kStandbyMs * 1000;
}

void measure(std::int64_t now) {
    constexpr std::int64_t kWindow = 1'000'000;
    if (now - rated_at < kWindow) return;
    const auto per = [&](std::int64_t count, std::int64_t unit) {
        return static_cast<std::int64_t>(static_cast<double>(count) * static_cast<double>(unit) *
                                         1e6 / static_cast<double>(now - rated_at));
    };
    const std::int64_t positions = bus->order.handed_out();
    const std::int64_t notifications = bus->notifications.load();
    bus->rate = (bus->rate.load() + per(positions - rated_positions, 1)) / 2;
    bus->notifications_per_second = per(notifications - rated_notifications, 1000);
    rated_positions = positions;
    rated_notifications = notifications;
    rated_at = now;
}

void do_chores() {
    Order& order = bus->order;
    if (order.reserved_end() - order.next() < kReservation / 2)
        in_transaction([&] { reserve_positions(*bus, order.reserved_end() + 1); });
    // The segment of the counter is there but after a promotion, or when a block was far ahead.
    const std::int64_t pos = order.next();
    if (pos / kSegmentWidth != segment_looked_for || pos % kSegmentWidth > kSegmentWidth / 2)
        in_transaction([&] {
            // A lock that somebody holds for long is not waited for: there is time.
            const Oid log = log_table();
            const std::int64_t ahead = pos % kSegmentWidth > kSegmentWidth / 2 ? kSegmentWidth : 0;
            if ((segment_exists(pos) && segment_exists(pos + ahead)) ||
                ConditionalLockRelationOid(log, ShareUpdateExclusiveLock)) {
                (void)segment_at(pos);
                (void)segment_at(pos + ahead);
                segment_looked_for = pos / kSegmentWidth;
            }
        });
    call_keeper_if_due(*bus, monotonic_us());
}

// Milliseconds until something is to be done without being rung for; -1: nothing.
long next_timeout(const Order::Horizon& horizon, std::int64_t now) {
    std::int64_t least = INT64_MAX;
    if (horizon.deadline != Order::kNever)
        least = Min(least, (horizon.deadline - now + 999) / 1000);
    if (XLogStandbyInfoActive() && told_horizon > standby_horizon) least = Min(least, kStandbyMs);
    if (queue_full) least = Min(least, kRetryMs);
    if (const std::int64_t due = bus->keep_at.load(); setting_maintain && due != Order::kNever)
        least = Min(least, (due - now + 999) / 1000);
    if (const std::int64_t due = bus->next_delivery.load(); due != kNoDelivery)
        least = Min(least, (due - GetCurrentTimestamp() + 999) / 1000);
    if (least == INT64_MAX) return -1;
    return static_cast<long>(Max(1, Min(least, 3'600'000)));
}

void on_exit_dispatcher(int, Datum) {
    bus->dispatcher_latch = nullptr;
    bus->dispatcher_pid = 0;
    bus->wanted = true;
    ConditionVariableBroadcast(&engine->worker_ended);
    wake_launcher();
}

void run() {
    std::int64_t begun = 0;
    for (;;) {
        ResetLatch(MyLatch);
        heed_signals();
        if (bus->gone.load()) proc_exit(0);
        if (const std::int64_t early = begun + kSpacing - monotonic_us(); early > 0)
            pg_usleep(static_cast<long>(early));
        begun = monotonic_us();
        ++bus->wake_ups;
        bus->rung = false;
        if (bus->next_delivery.load() <= GetCurrentTimestamp()) deliver_due(*bus);
        const Order::Horizon horizon = bus_horizon(*bus);
        if (horizon.position > told_horizon) {
            told_horizon = horizon.position;
            ConditionVariableBroadcast(&bus->advanced);
        }
        if (something_to_announce(horizon.position)) {
            announce_to(horizon.position);
        } else {
            raise_to(bus->announced_to, horizon.position);
            queue_full = false;
        }
        if (standby_is_due(begun)) in_transaction(tell_standby);
        do_chores();
        measure(begun);
        const long timeout = next_timeout(horizon, monotonic_us());
        (void)pgstat_report_stat(false);
        // A wait for a lock uses the latch, too, and may have taken a ring away: the flag tells.
        if (!bus->rung.load()) (void)sleep_on_latch(timeout);
    }
}

}  // namespace

}  // namespace herald

void herald_dispatcher_main(Datum argument) {
    using namespace herald;
    const Oid database = DatumGetObjectId(argument);
    begin_worker();
    connect_worker(database, "herald dispatcher");
    if (database_is_held(database)) proc_exit(0);
    in_transaction([&] {
        if (!extension_is_here()) {
            engine->without = database;
            return;
        }
        bus = &live_bus();
    });
    if (bus == nullptr) proc_exit(0);
    int nobody = 0;
    if (!bus->dispatcher_pid.compare_exchange_strong(nobody, MyProcPid)) proc_exit(0);
    before_shmem_exit(on_exit_dispatcher, 0);
    bus->dispatcher_latch = MyLatch;
    bus->wanted = false;
    wake_launcher();  // the next database is looked into once this one is attached
    // A statement that holds the database, or ends the bus, may have looked just before this one
    // was to be seen.
    if (database_is_held(database) || bus->gone.load()) proc_exit(0);
    RegisterXactCallback(on_transaction, nullptr);
    listened_memory =
        AllocSetContextCreate(TopMemoryContext, "herald listeners", ALLOCSET_DEFAULT_SIZES);
    rated_at = monotonic_us();
    rated_positions = bus->order.handed_out();
    rated_notifications = bus->notifications.load();
    in_transaction([] { look_for_scheduled(*bus); });
    run();
}
