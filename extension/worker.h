// What the background workers have in common.
#pragma once

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

template <typename Work>
void in_transaction(Work&& work) {
    SetCurrentStatementStartTimestamp();
    StartTransactionCommand();
    work();
    CommitTransactionCommand();
}

}  // namespace herald
