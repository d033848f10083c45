// Loading of the library, and what happens at the end of each transaction.

#include "engine.h"
#include "hooks.h"
#include "keeper.h"
#include "listeners.h"
#include "pg.h"
#include "schedule.h"
#include "settings.h"
#include "tier.h"

extern "C" {
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

namespace herald {

namespace {

void on_transaction(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_PRE_COMMIT:
            // Before PreCommit_Notify, so that what is queued here leaves with this commit.
            tier().before_commit();
            if (engine_loaded()) hooks_before_commit();
            break;
        case XACT_EVENT_PRE_PREPARE:
            if (tier().has_claims())
                ereport(ERROR,
                        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                         errmsg("cannot PREPARE a transaction that has sent messages"),
                         errhint("A prepared transaction would keep the order of all messages "
                                 "waiting. Send in a transaction of its own.")));
            if (engine_loaded() &&
                (schedule_is_touched() || keeper_is_wished_for() || hooks_have_something()))
                ereport(ERROR,
                        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                         errmsg("cannot PREPARE a transaction that has scheduled or cancelled "
                                "messages, changed what is kept, or created or dropped pg_herald "
                                "or a database"),
                         errhint("The engine would not hear of its commit. Use a transaction of "
                                 "its own.")));
            break;
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_ABORT:
        case XACT_EVENT_PREPARE:
            tier().after_end(event == XACT_EVENT_COMMIT);
            if (engine_loaded()) {
                schedule_transaction_ended();
                keeper_transaction_ended(event == XACT_EVENT_COMMIT);
                listeners_transaction_ended(event == XACT_EVENT_COMMIT);
                hooks_transaction_ended(event == XACT_EVENT_COMMIT);
            }
            break;
        case XACT_EVENT_PARALLEL_COMMIT:
        case XACT_EVENT_PARALLEL_ABORT:
        case XACT_EVENT_PARALLEL_PRE_COMMIT:
            break;
    }
}

}  // namespace

}  // namespace herald

void _PG_init(void) {
    herald::define_settings();
    if (process_shared_preload_libraries_in_progress) herald::prepare_engine();
    RegisterXactCallback(herald::on_transaction, nullptr);
}
