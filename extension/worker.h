// What the background workers have in common.
#pragma once

#include "engine.h"
#include "pg.h"

namespace herald {

// A description for registration: the worker calls `main_function` of this library with `argument`,
// and is not started again by itself. Its type, as pg_stat_activity shows it, is `type`.
BackgroundWorker worker_of(const char* type, const char* main_function, Datum argument);

// First thing in a worker's main function.
void begin_worker();

// Connects to a database. What ALTER DATABASE … SET says there of transactions and time limits is
// for sessions of users. Commits of workers are asynchronous.
void connect_worker(Oid database, const char* application_name);

// Each time round its loop: cancels and terminations, changed settings.
void heed_signals();

// Whether this worker's database has the extension at the version of this library; in a
// transaction.
bool extension_is_here();

// Sleeps until the latch is set, or for `timeout` milliseconds (-1: without end). False: it was the
// time.
bool sleep_on_latch(long timeout);

// Runs `work`, which begins and ends its own transactions. False: it met a lock that was not to be
// had within lock_timeout, or the extension is gone; what was under way has been rolled back.
template <typename Work>
bool attempt(const Bus& bus, Work&& work) {
    MemoryContext caller = CurrentMemoryContext;
    volatile bool done = true;
    PG_TRY();
    { work(); }
    PG_CATCH();
    {
        const int code = geterrcode();
        const bool locked =
            code == ERRCODE_LOCK_NOT_AVAILABLE || code == ERRCODE_T_R_DEADLOCK_DETECTED;
        if (!locked && !bus.gone.load()) PG_RE_THROW();
        MemoryContextSwitchTo(caller);
        FlushErrorState();
        AbortOutOfAnyTransaction();
        done = false;
    }
    PG_END_TRY();
    return done;
}

// Waits, in a transaction, for those that have a relation open now; each as long as lock_timeout
// says.
void wait_for_users(Oid relation);

// Runs a statement that commits in between, as a client would send it. Not in a transaction.
void run_utility(const char* sql);

template <typename Work>
void in_transaction(Work&& work) {
    SetCurrentStatementStartTimestamp();
    StartTransactionCommand();
    work();
    CommitTransactionCommand();
}

}  // namespace herald
