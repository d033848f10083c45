#include "engine.h"

#include <ctime>

#include "compat.h"
#include "hooks.h"
#include "launcher.h"
#include "listeners.h"
#include "locks.h"
#include "log.h"
#include "register.h"
#include "settings.h"

namespace herald {

constinit Engine* engine = nullptr;

namespace {

constexpr const char* kTranche = "pg_herald";

constinit shmem_request_hook_type next_request_hook = nullptr;
constinit shmem_startup_hook_type next_startup_hook = nullptr;

// The bus this backend used last; checked against its key each time.
constinit Bus* last_used = nullptr;

// One piece of shared memory: the Engine, its buses, its slots.
Size buses_offset() {
    return TYPEALIGN(alignof(Bus), sizeof(Engine));
}

Size slots_offset() {
    const Size buses = mul_size(sizeof(Bus), static_cast<Size>(setting_max_databases));
    return TYPEALIGN(alignof(Slot), add_size(buses_offset(), buses));
}

Size engine_size() {
    return add_size(slots_offset(), mul_size(sizeof(Slot), static_cast<Size>(MaxBackends)));
}

void request_memory() {
    if (next_request_hook != nullptr) next_request_hook();
    RequestAddinShmemSpace(engine_size());
    RequestAddinShmemSpace(listeners_size());
    RequestNamedLWLockTranche(kTranche, setting_max_databases + 2);
}

void start_up() {
    if (next_startup_hook != nullptr) next_startup_hook();
    with_lwlock(AddinShmemInitLock, LW_EXCLUSIVE, [] {
        bool found = false;
        auto* memory =
            static_cast<char*>(ShmemInitStruct("pg_herald engine", engine_size(), &found));
        engine = reinterpret_cast<Engine*>(memory);
        LWLockPadded* locks = GetNamedLWLockTranche(kTranche);
        if (!found) {
            memset(memory, 0, engine_size());
            engine->lock = &locks[0].lock;
            ConditionVariableInit(&engine->worker_ended);
            engine->bus_count = setting_max_databases;
            engine->slot_count = MaxBackends;
            engine->buses = reinterpret_cast<Bus*>(memory + buses_offset());
            engine->slots = reinterpret_cast<Slot*>(memory + slots_offset());
            for (int i = 0; i < engine->bus_count; ++i) {
                engine->buses[i].lock = &locks[i + 2].lock;
                ConditionVariableInit(&engine->buses[i].advanced);
            }
        }
        start_listeners(&locks[1].lock);
    });
}

// Taken for an extension created in this transaction.
constinit Bus* taken_now = nullptr;

bool is_new(Oid table) {
    Relation relation = table_open(table, AccessShareLock);
    const bool created_now = relation->rd_createSubid != InvalidSubTransactionId;
    table_close(relation, NoLock);
    return created_now;
}

// The bus with this key; takes a free one if there is none yet.
Bus& find_or_take_bus(Oid database, Oid log) {
    Bus* bus = nullptr;
    with_lwlock(engine->lock, LW_EXCLUSIVE, [&] {
        bus = find_bus(database, log);
        for (int i = 0; bus == nullptr && i < engine->bus_count; ++i) {
            Bus& candidate = engine->buses[i];
            if (candidate.database.load() != InvalidOid) continue;
            bus = &candidate;
            bus->started = false;
            bus->gone = false;
            bus->wanted = false;
            bus->rung = false;
            bus->log = log;
            bus->database = database;
        }
    });
    if (bus == nullptr)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("the herald engine serves %d databases already", engine->bus_count),
                        errhint("Set herald.max_databases higher and restart the server.")));
    if (is_new(log)) taken_now = bus;
    return *bus;
}

// Readers must not find the counter's register moved while the bus doesn't look alive: therefore it
// comes to life without a single number, and numbers are reserved afterwards.
void start_bus(Bus& bus) {
    with_lock_for_now(herald_lock(kAttachKey), [&] {
        if (bus.started.load()) return;
        leave_lost_positions_behind();
        const std::int64_t first = first_free_position();
        with_lwlock(bus.lock, LW_EXCLUSIVE, [&] { bus.order.start(first, first); });
        bus.announced_to = first - 1;
        for (auto& bucket : bus.buckets) bucket = first - 1;
        bus.next_delivery = kNoDelivery;
        bus.keep_at = 0;
        bus.rate = 0;
        bus.restamped_transactions = 0;
        bus.restamped_messages = 0;
        bus.notifications = 0;
        bus.notifications_per_second = 0;
        bus.wake_ups = 0;
        bus.started = true;
        write_register(kHorizonRegister, {first - 1, true});
        reserve_positions(bus, first + 1);
    });
}

}  // namespace

void prepare_engine() {
    next_request_hook = shmem_request_hook;
    shmem_request_hook = request_memory;
    next_startup_hook = shmem_startup_hook;
    shmem_startup_hook = start_up;
    install_hooks();
    register_launcher();
}

Bus* find_bus(Oid database, Oid log) {
    for (int i = 0; i < engine->bus_count; ++i) {
        Bus& bus = engine->buses[i];
        if (bus.database.load() == database && bus.log.load() == log) return &bus;
    }
    return nullptr;
}

Bus* find_live_bus() {
    const Oid log = log_table();
    Bus* bus = last_used;
    if (bus == nullptr || bus->database.load() != MyDatabaseId || bus->log.load() != log)
        bus = find_bus(MyDatabaseId, log);
    return bus != nullptr && bus->started.load() ? bus : nullptr;
}

Bus& live_bus() {
    Bus* bus = find_live_bus();
    if (bus == nullptr) {
        bus = &find_or_take_bus(MyDatabaseId, log_table());
        if (!bus->started.load()) start_bus(*bus);
    }
    last_used = bus;
    return *bus;
}

Bus* known_bus() {
    return last_used != nullptr && last_used->database.load() == MyDatabaseId ? last_used : nullptr;
}

void release_bus(Bus& bus) {
    with_lwlock(engine->lock, LW_EXCLUSIVE, [&] {
        bus.started = false;
        bus.gone = false;
        bus.log = InvalidOid;
        bus.database = InvalidOid;
    });
}

void check_new_bus() {
    if (taken_now == nullptr ||
        SearchSysCacheExists1(RELOID, ObjectIdGetDatum(taken_now->log.load())))
        return;
    release_bus(*taken_now);
    taken_now = nullptr;
}

void forget_new_bus(bool committed) {
    if (taken_now != nullptr && !committed) release_bus(*taken_now);
    taken_now = nullptr;
}

Slot& my_slot() {
    return engine->slots[my_process_number()];
}

void reserve_positions(Bus& bus, std::int64_t end) {
    if (bus.order.reserved_end() >= end) return;
    with_lock_for_now(herald_lock(kReserveKey), [&] {
        if (bus.order.reserved_end() >= end) return;
        const std::int64_t target = Max(end, bus.order.next()) + kReservation;
        write_register(kPositionRegister, {target, false});
        flush_wal();
        with_lwlock(bus.lock, LW_EXCLUSIVE, [&] { bus.order.reserve(target); });
    });
}

Order::Horizon bus_horizon(Bus& bus, const Slot* except) {
    return bus.order.horizon(engine->slots, static_cast<std::size_t>(engine->slot_count),
                             order_name(bus), monotonic_us(), std::int64_t{setting_max_hold} * 1000,
                             except);
}

std::int64_t monotonic_us() {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

void ring(Bus& bus) {
    if (bus.rung.exchange(true)) return;
    if (Latch* latch = bus.dispatcher_latch.load(); latch != nullptr) {
        SetLatch(latch);
    } else {
        bus.wanted = true;
        wake_launcher();
    }
}

void wake_launcher() {
    if (Latch* latch = engine->launcher_latch.load(); latch != nullptr) SetLatch(latch);
}

int bucket_of(std::string_view topic) {
    return static_cast<int>(hash_bytes(reinterpret_cast<const unsigned char*>(topic.data()),
                                       static_cast<int>(topic.size())) %
                            kBuckets);
}

}  // namespace herald
