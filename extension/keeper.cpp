#include "keeper.h"

#include "books.h"
#include "launcher.h"
#include "purge.h"
#include "rewrite.h"
#include "scoped.h"
#include "segments.h"
#include "settings.h"
#include "waste.h"
#include "worker.h"

extern "C" PGDLLEXPORT void herald_keeper_main(Datum argument);

namespace herald {

namespace {

// So many messages are counted at once; and what has come is counted after so long (microseconds).
constexpr std::int64_t kFoldInterval = 16'384;
constexpr std::int64_t kFoldWithin = 60'000'000;
// A keeper that was called and gives no answer is called again after this (microseconds).
constexpr std::int64_t kCallAgain = 5'000'000;
// How long it waits for a lock (less than deadlock_timeout), and when it tries again
// (microseconds).
constexpr const char* kMostWait = "100ms";
constexpr std::int64_t kComeBack = 1'000'000;
// It stays so long without work (milliseconds), and never longer than this (microseconds): its
// successor goes by the settings that the database has then.
constexpr long kLinger = 10'000;
constexpr std::int64_t kLifetime = 60'000'000;

// The dispatcher's: how far the keeper was last called for.
constinit std::int64_t called_for = 0;
constinit bool told_of_no_worker = false;

// The keeper's.
constinit Bus* bus = nullptr;
constinit bool working = false;
constinit std::int64_t ends_at = 0;

// When this transaction has made work for the keeper.
constinit std::int64_t wished_for = Order::kNever;

void start_keeper() {
    BackgroundWorker worker =
        worker_of("herald keeper", "herald_keeper_main", ObjectIdGetDatum(MyDatabaseId));
    const bool started = RegisterDynamicBackgroundWorker(&worker, nullptr);
    if (!started && !told_of_no_worker)
        ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                          errmsg("no background worker is free for the herald keeper"),
                          errdetail("Old messages are not removed until there is one."),
                          errhint("Set max_worker_processes higher and restart the server.")));
    told_of_no_worker = !started;
}

void count_all() {
    for (bool more = true; more;) {
        in_transaction([&] { more = fold_counters(); });
        heed_signals();
    }
}

// Runs a statement that says after how many milliseconds it is to be run again, or NULL; gives when
// that is (monotonic).
std::int64_t run_step(const char* sql) {
    std::int64_t next = Order::kNever;
    in_transaction([&] {
        with_owner_spi([&] {
            run_statement(sql, SPI_OK_SELECT);
            bool null = false;
            const Datum wait =
                SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
            if (!null) next = monotonic_us() + 1000 * DatumGetInt64(wait);
        });
    });
    return next;
}

// One round; gives when the next is due (monotonic). Whoever wants to have a table of the bus for
// himself, as DROP EXTENSION, does not wait for the keeper, nor can they wait for each other: it
// gives a step up after kMostWait and comes back later.
std::int64_t keep() {
    std::int64_t next = Order::kNever;
    give_way();
    // What is being committed right now rang before it can be counted.
    const std::int64_t handed_out = bus->order.next();
    bool done = bus_horizon(*bus).position >= handed_out - 1;
    const auto step = [&](auto&& work) { done = attempt(*bus, work) && done; };
    step(count_all);
    const auto step_of = [&](const char* sql) {
        step([&] {
            const std::int64_t due = run_step(sql);  // once: Min is a macro
            next = Min(next, due);
        });
    };
    step_of("SELECT herald.keep(pg_catalog.clock_timestamp())");
    step_of("SELECT herald.keep_archives()");
    step_of("SELECT herald.rotate(pg_catalog.clock_timestamp())");
    step_of("SELECT herald.keep_payloads(pg_catalog.clock_timestamp())");
    step_of("SELECT herald.look_at_payloads()");
    step([&] { done = remove_segments(*bus) && done; });
    step_of("SELECT herald.remove_payloads()");
    abandon_removal();
    step([&] { done = rewrite_tables(*bus) && done; });
    step([&] { done = scrub_scheduled(*bus) && done; });
    step([&] {
        // It gives disk back when it rests; if it ends before that is done, another one does.
        if (shorten_waste(*bus) != Order::kNever) next = Min(next, monotonic_us() + kCallAgain);
    });
    return done ? next : Min(next, monotonic_us() + kComeBack);
}

// Until it is called again; waste is seen to meanwhile. False: it was not, for kLinger.
bool rest() {
    const std::int64_t end = monotonic_us() + 1000 * kLinger;
    while (monotonic_us() < end) {
        const std::int64_t due = shorten_waste(*bus);  // once: Min is a macro
        const std::int64_t left = Min(end, due) - monotonic_us();
        if (sleep_on_latch(Max(0, left) / 1000 + 1)) return true;
        heed_signals();
    }
    return false;
}

void on_exit_keeper(int, Datum) {
    bus->keeper_latch = nullptr;
    bus->keeper_pid = 0;
    const std::int64_t now = monotonic_us();
    if (working) lower_to(bus->keep_at, now + kCallAgain);  // the next one does it
    if (now >= ends_at) lower_to(bus->keep_at, now);        // it may have been called just now
    ring(*bus);
    ConditionVariableBroadcast(&engine->worker_ended);
    if (bus->gone.load()) wake_launcher();
}

void run() {
    ends_at = monotonic_us() + kLifetime;
    do {
        ResetLatch(MyLatch);
        heed_signals();
        if (bus->gone.load()) return;
        // A wish that comes while it works is kept: the changed rule may be too new for this round.
        bus->keep_at = Order::kNever;
        working = true;
        lower_to(bus->keep_at, keep());
        working = false;
        ring(*bus);  // the dispatcher sets its timer
        (void)pgstat_report_stat(false);
    } while (rest() && (monotonic_us() < ends_at || is_copying()));
}

}  // namespace

void call_keeper_if_due(Bus& of, std::int64_t now) {
    if (!setting_maintain) return;
    const std::int64_t handed_out = of.order.handed_out();
    if (handed_out > called_for) lower_to(of.keep_at, now + kFoldWithin);
    if (of.keep_at.load() > now && handed_out - called_for < kFoldInterval) return;
    called_for = handed_out;
    of.keep_at = now + kCallAgain;
    if (Latch* latch = of.keeper_latch.load(); latch != nullptr) {
        SetLatch(latch);
    } else if (of.keeper_pid.load() == 0) {
        start_keeper();
    }
}

void wish_for_keeper(std::int64_t at) {
    if (!engine_loaded() || live_bus().keeper_pid.load() == MyProcPid) return;
    wished_for = Min(wished_for, at);
}

bool keeper_is_wished_for() {
    return wished_for != Order::kNever;
}

void keeper_transaction_ended(bool committed) {
    if (keeper_is_wished_for() && committed) {
        if (Bus* known = known_bus(); known != nullptr) {
            lower_to(known->keep_at, wished_for);
            ring(*known);
        }
    }
    wished_for = Order::kNever;
}

HERALD_FUNCTION(herald_rules_changed) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("this function is a trigger of herald.retention"),
                        errhint("It cannot be called by itself.")));
    wish_for_keeper();
    return PointerGetDatum(nullptr);
}

}  // namespace herald

void herald_keeper_main(Datum argument) {
    using namespace herald;
    const Oid database = DatumGetObjectId(argument);
    begin_worker();
    connect_worker(database, "herald keeper");
    SetConfigOption("lock_timeout", kMostWait, PGC_SUSET, PGC_S_OVERRIDE);
    if (database_is_held(database)) proc_exit(0);
    in_transaction([] {
        if (extension_is_here()) bus = &live_bus();
    });
    int nobody = 0;
    if (bus == nullptr || !bus->keeper_pid.compare_exchange_strong(nobody, MyProcPid)) proc_exit(0);
    before_shmem_exit(on_exit_keeper, 0);
    bus->keeper_latch = MyLatch;
    // As the dispatcher.
    if (database_is_held(database) || bus->gone.load()) proc_exit(0);
    run();
    proc_exit(0);
}
