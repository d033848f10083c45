// Loading of the library, and what happens at the end of each transaction.

#include "announce.h"
#include "pg.h"
#include "position.h"
#include "settings.h"

extern "C" {
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

namespace herald {

namespace {

void on_transaction(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_PRE_COMMIT:
            // Before PreCommit_Notify, so the doorbell leaves with this commit.
            ring_doorbell();
            move_counter_now();
            break;
        case XACT_EVENT_PRE_PREPARE:
            if (has_positions())
                ereport(ERROR,
                        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                         errmsg("cannot PREPARE a transaction that has sent messages"),
                         errhint("A prepared transaction would keep the order of all messages "
                                 "waiting. Send in a transaction of its own.")));
            break;
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_ABORT:
        case XACT_EVENT_PREPARE:
            forget_positions();
            forget_doorbell();
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
    RegisterXactCallback(herald::on_transaction, nullptr);
}
