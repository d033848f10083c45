// The engine's shared memory: what all backends of the server know together.
//
// One Bus per database that has the extension, keyed by the database and the oid of herald.message;
// one Slot per backend. Both are found by number and never move. A bus comes to life when somebody
// first sends (or a dispatcher starts) after the server's start; until then nothing can be in
// flight, and everything below the counter's register is decided.
//
// Locks (LWLocks, each held for a few instructions, never across anything that waits):
//   engine->lock   which database has which bus; database statements under way
//   bus->lock      the regions and blocks of bus->order; bus->reads
// Taken in this order. Everything else is atomics.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "core/horizon.h"
#include "core/recent_reads.h"
#include "pg.h"

namespace herald {

// Topics fall into so many buckets, by hash; a bucket says how far anything in it has got.
constexpr int kBuckets = 1024;
// How many numbers are reserved at a time; a crash skips at most about twice as many.
constexpr std::int64_t kReservation = 1 << 24;

struct Bus {
    std::atomic<Oid> database;  // InvalidOid: free
    std::atomic<Oid> log;       // oid of herald.message
    std::atomic<bool> started;
    std::atomic<bool> gone;  // the extension was dropped: the dispatcher ends and frees the bus
    LWLock* lock;
    Order order;

    // The dispatcher.
    std::atomic<Latch*> dispatcher_latch;  // nullptr: none runs
    std::atomic<int> dispatcher_pid;
    std::atomic<bool> wanted;                // somebody has work for it, and it doesn't run
    std::atomic<bool> rung;                  // there may be something to do
    std::atomic<std::int64_t> announced_to;  // everything up to here has been announced
    ConditionVariable advanced;              // the horizon has moved

    // The keeper (keeper.h).
    std::atomic<Latch*> keeper_latch;  // nullptr: none runs
    std::atomic<int> keeper_pid;
    std::atomic<std::int64_t> keep_at;  // when it is to work next; monotonic_us

    // Per bucket: no committed message has a position above this.
    std::atomic<std::int64_t> buckets[kBuckets];
    // Scheduled messages: when the next is due, and where to look for it; TimestampTz.
    std::atomic<std::int64_t> next_delivery;  // kNoDelivery: none
    std::atomic<std::int64_t> rate;           // positions a second, lately

    // Of payloads, for herald.audit (payload_life.h).
    RecentReads reads;

    // For herald.engine.
    std::atomic<std::int64_t> restamped_transactions;
    std::atomic<std::int64_t> restamped_messages;
    std::atomic<std::int64_t> notifications;
    std::atomic<std::int64_t> notifications_per_second;  // in thousandths
    std::atomic<std::int64_t> wake_ups;
};

constexpr std::int64_t kNoDelivery = DT_NOEND;

// A database in which a statement is under way that other connections would disturb.
struct HeldDatabase {
    Oid database;
    int holders;
};

struct Engine {
    static constexpr int kMaxHeld = 64;

    LWLock* lock;
    std::atomic<Latch*> launcher_latch;
    std::atomic<Oid> without;      // where a dispatcher found no extension, for the launcher
    std::atomic<bool> look_again;  // for the launcher: the list of databases may have changed
    ConditionVariable worker_ended;
    HeldDatabase held[kMaxHeld];
    int bus_count;
    int slot_count;
    Bus* buses;
    Slot* slots;
};

// nullptr: the library was not preloaded.
extern Engine* engine;

inline bool engine_loaded() {
    return engine != nullptr;
}

// From _PG_init in the postmaster: asks for shared memory and registers the launcher.
void prepare_engine();

// The bus of this database, alive: numbers can be taken. Makes it so if necessary; in a transaction
// that may write.
Bus& live_bus();

// The bus of this database if it is alive; nullptr otherwise.
Bus* find_live_bus();

// The bus that this backend used last; for the ends of transactions. nullptr: none.
Bus* known_bus();

// The bus with this key or nullptr.
Bus* find_bus(Oid database, Oid log);

// The number of a bus, as slots name it.
inline std::uint32_t order_name(const Bus& bus) {
    return static_cast<std::uint32_t>(&bus - engine->buses) + 1;
}

// This backend's slot.
Slot& my_slot();

// Reserves numbers durably, so that they reach to `end` and some way further. Waits for the disk.
void reserve_positions(Bus& bus, std::int64_t end);

// Everything up to here is decided; what holds it back too long is made late. `except`: a backend
// that asks about all others.
Order::Horizon bus_horizon(Bus& bus, const Slot* except = nullptr);

// Microseconds of a clock that all processes share and that never goes back.
std::int64_t monotonic_us();

// Wakes the dispatcher, or has one started. Cheap, never waits, never fails.
void ring(Bus& bus);

// For the launcher: something to do.
void wake_launcher();

// Frees a bus whose extension is gone and that has no worker.
void release_bus(Bus& bus);

// At the end of a transaction: a bus made for an extension that was rolled back, with the
// transaction or to a savepoint, is freed.
void check_new_bus();
void forget_new_bus(bool committed);

int bucket_of(std::string_view topic);

// Raises an atomic to at least `value`.
inline void raise_to(std::atomic<std::int64_t>& target, std::int64_t value) {
    std::int64_t seen = target.load(std::memory_order_seq_cst);
    while (seen < value && !target.compare_exchange_weak(seen, value, std::memory_order_seq_cst)) {
    }
}

// Lowers an atomic to at most `value`.
inline void lower_to(std::atomic<std::int64_t>& target, std::int64_t value) {
    std::int64_t seen = target.load();
    while (seen > value && !target.compare_exchange_weak(seen, value)) {
    }
}

template <typename Work>
void with_lwlock(LWLock* lock, LWLockMode mode, Work&& work) {
    LWLockAcquire(lock, mode);
    work();
    LWLockRelease(lock);
}

}  // namespace herald
