#include "launcher.h"

#include <csignal>
#include <initializer_list>

#include "compat.h"
#include "worker.h"

extern "C" PGDLLEXPORT void herald_launcher_main(Datum argument);

namespace herald {

namespace {

constexpr long kRetryMs = 1000;
constexpr int kMaxChildren = 256;

// A dispatcher that this launcher started.
struct Child {
    Oid database;
    BackgroundWorkerHandle* handle;  // nullptr: to be started
    TimestampTz start_at;            // not before
    TimestampTz started_at;
};

constinit Child children[kMaxChildren] = {};
constinit int child_count = 0;
// Databases that were looked into and don't have the extension.
constinit List* without = NIL;
constinit bool told_of_no_worker = false;
// Somebody was turned away since there were too many children.
constinit bool no_room = false;

HeldDatabase* find_held(Oid database) {
    for (HeldDatabase& held : engine->held) {
        if (held.holders > 0 && held.database == database) return &held;
    }
    return nullptr;
}

bool dispatcher_is_in(Oid database) {
    for (int i = 0; i < engine->bus_count; ++i) {
        const Bus& bus = engine->buses[i];
        if (bus.database.load() == database && bus.dispatcher_pid.load() != 0) return true;
    }
    return false;
}

// False if there is one already, or no room.
bool want(Oid database) {
    if (dispatcher_is_in(database)) return false;
    if (child_count == kMaxChildren) {
        no_room = true;
        return false;
    }
    for (int i = 0; i < child_count; ++i) {
        if (children[i].database == database) return false;
    }
    children[child_count++] = {database, nullptr, 0, 0};
    return true;
}

void want_all_databases() {
    in_transaction([] {
        (void)GetTransactionSnapshot();
        Relation relation = table_open(DatabaseRelationId, AccessShareLock);
        TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
        while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection)) {
            const auto* database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
            if (database->datallowconn && database->datconnlimit != -2 &&
                !list_member_oid(without, database->oid))
                (void)want(database->oid);
        }
        table_endscan(scan);
        table_close(relation, AccessShareLock);
    });
}

bool database_exists(Oid database) {
    bool exists = false;
    in_transaction(
        [&] { exists = SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)); });
    return exists;
}

void start(Child& child, TimestampTz now) {
    BackgroundWorker worker =
        worker_of("herald dispatcher", "herald_dispatcher_main", ObjectIdGetDatum(child.database));
    worker.bgw_notify_pid = MyProcPid;
    child.started_at = now;
    MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
    if (!RegisterDynamicBackgroundWorker(&worker, &child.handle)) {
        child.handle = nullptr;
        child.start_at = TimestampTzPlusMilliseconds(now, 5 * kRetryMs);
        if (!told_of_no_worker)
            ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                              errmsg("no background worker is free for a herald dispatcher"),
                              errhint("Set max_worker_processes higher and restart the server.")));
        told_of_no_worker = true;
    }
    MemoryContextSwitchTo(caller);
}

// Whether the child is still of interest.
bool look_after(Child& child, TimestampTz now) {
    if (child.handle != nullptr) {
        pid_t pid = 0;
        if (GetBackgroundWorkerPid(child.handle, &pid) != BGWH_STOPPED) return true;
        pfree(child.handle);
        child.handle = nullptr;
        if (engine->without.load() == child.database) {
            engine->without = InvalidOid;
            MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
            without = list_append_unique_oid(without, child.database);
            MemoryContextSwitchTo(caller);
            return false;
        }
        // One that ended soon after its start is not hurried.
        child.start_at = TimestampTzPlusMilliseconds(child.started_at, kRetryMs);
    }
    if (database_is_held(child.database)) return false;  // whoever lets it go asks for it again
    if (child.start_at > now) return true;
    if (!database_exists(child.database)) return false;
    start(child, now);
    return true;
}

// One that only looks whether the extension is there: the next one waits for its answer.
bool is_looking(const Child& child) {
    return child.handle != nullptr && !dispatcher_is_in(child.database);
}

void sweep(Bus& bus) {
    if (bus.gone.load()) {
        if (bus.dispatcher_pid.load() == 0 && bus.keeper_pid.load() == 0) release_bus(bus);
        return;
    }
    if (bus.database.load() != InvalidOid && bus.wanted.load() && bus.dispatcher_pid.load() == 0) {
        without = list_delete_oid(without, bus.database.load());
        // If there is a child already it may have looked before the extension was there, or serve
        // one that was dropped: the wish stays until that child has ended or is the dispatcher.
        if (want(bus.database.load())) bus.wanted = false;
    }
}

void on_exit_launcher(int, Datum) {
    engine->launcher_latch = nullptr;
}

void run() {
    for (;;) {
        ResetLatch(MyLatch);
        heed_signals();
        if (engine->look_again.exchange(false)) want_all_databases();
        for (int i = 0; i < engine->bus_count; ++i) sweep(engine->buses[i]);
        const TimestampTz now = GetCurrentTimestamp();
        long timeout = -1;
        bool looking = false;
        int kept = 0;
        for (int i = 0; i < child_count; ++i) {
            Child child = children[i];
            const bool wait = looking && child.handle == nullptr;
            if (!wait && !look_after(child, now)) {
                SetLatch(MyLatch);  // another round: it may be wanted again
                continue;
            }
            looking = looking || is_looking(child);
            if (!wait && child.handle == nullptr) timeout = kRetryMs;
            children[kept++] = child;
        }
        if (kept < child_count && no_room) {
            no_room = false;
            engine->look_again = true;
        }
        child_count = kept;
        if (!engine->look_again.load()) (void)sleep_on_latch(timeout);
    }
}

}  // namespace

void register_launcher() {
    BackgroundWorker worker = worker_of("herald launcher", "herald_launcher_main", 0);
    worker.bgw_restart_time = 1;
    RegisterBackgroundWorker(&worker);
}

void hold_database(Oid database) {
    bool held = false;
    with_lwlock(engine->lock, LW_EXCLUSIVE, [&] {
        HeldDatabase* place = find_held(database);
        for (HeldDatabase& candidate : engine->held) {
            if (place == nullptr && candidate.holders == 0) place = &candidate;
        }
        if (place == nullptr) return;
        place->database = database;
        ++place->holders;
        held = true;
    });
    if (!held)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("too many databases are being made, moved or dropped"),
                        errhint("Try again when the others have ended.")));
}

void end_workers(Oid database) {
    const auto end_all = [database] {
        bool found = false;
        for (int i = 0; i < engine->bus_count; ++i) {
            const Bus& bus = engine->buses[i];
            if (bus.database.load() != database) continue;
            for (const int pid : {bus.dispatcher_pid.load(), bus.keeper_pid.load()}) {
                if (pid == 0) continue;
                (void)kill(pid, SIGTERM);
                found = true;
            }
        }
        return found;
    };
    ConditionVariablePrepareToSleep(&engine->worker_ended);
    while (end_all())
        (void)ConditionVariableTimedSleep(&engine->worker_ended, kRetryMs, PG_WAIT_EXTENSION);
    ConditionVariableCancelSleep();
}

void let_database_go(Oid database) {
    with_lwlock(engine->lock, LW_EXCLUSIVE, [&] {
        if (HeldDatabase* held = find_held(database)) --held->holders;
    });
    engine->look_again = true;
    wake_launcher();
}

bool database_is_held(Oid database) {
    bool held = false;
    with_lwlock(engine->lock, LW_SHARED, [&] { held = find_held(database) != nullptr; });
    return held;
}

void forget_database(Oid database) {
    for (int i = 0; i < engine->bus_count; ++i) {
        if (engine->buses[i].database.load() == database) engine->buses[i].gone = true;
    }
}

void retire_bus(Bus& bus) {
    bus.gone = true;
    if (Latch* latch = bus.dispatcher_latch.load(); latch != nullptr) SetLatch(latch);
    if (Latch* latch = bus.keeper_latch.load(); latch != nullptr) SetLatch(latch);
    ConditionVariableBroadcast(&bus.advanced);
    wake_launcher();
}

}  // namespace herald

void herald_launcher_main(Datum) {
    using namespace herald;
    begin_worker();
    BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
    before_shmem_exit(on_exit_launcher, 0);
    engine->launcher_latch = MyLatch;
    engine->look_again = true;
    run();
}
