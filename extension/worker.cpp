#include "worker.h"

#include "locks.h"
#include "log.h"
#include "register.h"

namespace herald {

BackgroundWorker worker_of(const char* type, const char* main_function, Datum argument) {
    BackgroundWorker worker = {};
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = BGW_NEVER_RESTART;
    strlcpy(worker.bgw_library_name, "pg_herald", sizeof worker.bgw_library_name);
    strlcpy(worker.bgw_function_name, main_function, sizeof worker.bgw_function_name);
    strlcpy(worker.bgw_type, type, sizeof worker.bgw_type);
    strlcpy(worker.bgw_name, type, sizeof worker.bgw_name);
    worker.bgw_main_arg = argument;
    return worker;
}

void begin_worker() {
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    pqsignal(SIGTERM, die);
    BackgroundWorkerUnblockSignals();
}

void connect_worker(Oid database, const char* application_name) {
    BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
    const auto set = [](const char* name, const char* value) {
        SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
    };
    set("application_name", application_name);
    set("synchronous_commit", "off");
    set("default_transaction_isolation", "read committed");
    set("default_transaction_read_only", "off");
    set("statement_timeout", "0");
    set("lock_timeout", "0");
    set("idle_in_transaction_session_timeout", "0");
    // 17
    if (GetConfigOption("transaction_timeout", true, false) != nullptr)
        set("transaction_timeout", "0");
}

void heed_signals() {
    CHECK_FOR_INTERRUPTS();
    if (!ConfigReloadPending) return;
    ConfigReloadPending = false;
    ProcessConfigFile(PGC_SIGHUP);
}

bool extension_is_here() {
    return OidIsValid(get_extension_oid("pg_herald", true)) && log_exists() && registers_exist();
}

void wait_for_users(Oid relation) {
    const LOCKTAG tag = relation_lock(relation);
    int count = 0;
    const VirtualTransactionId* users = GetLockConflicts(&tag, AccessExclusiveLock, &count);
    for (int i = 0; i < count; ++i) (void)VirtualXactLock(users[i], true);
}

bool sleep_on_latch(long timeout) {
    const int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0);
    return (WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION) & WL_LATCH_SET) != 0;
}

void run_utility(const char* sql) {
    // Outlives the transactions inside.
    static constinit MemoryContext memory = nullptr;
    if (memory == nullptr)
        memory = AllocSetContextCreate(TopMemoryContext, "herald utility", ALLOCSET_SMALL_SIZES);
    MemoryContextReset(memory);
    PortalContext = memory;
    StartTransactionCommand();
    MemoryContextSwitchTo(memory);
    PlannedStmt* statement = makeNode(PlannedStmt);
    statement->commandType = CMD_UTILITY;
    statement->canSetTag = true;
    statement->utilityStmt = linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT))->stmt;
    PushActiveSnapshot(GetTransactionSnapshot());
    ProcessUtility(statement, sql, false, PROCESS_UTILITY_TOPLEVEL, nullptr, nullptr, None_Receiver,
                   nullptr);
    if (ActiveSnapshotSet()) PopActiveSnapshot();
    CommitTransactionCommand();
}

}  // namespace herald
