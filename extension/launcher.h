// The launcher: one background worker for the server that starts a dispatcher for each database
// with the extension and starts it again when it ended. Databases in which a statement is under
// way that other connections would disturb are held: no worker is in them.
#pragma once

#include "engine.h"

namespace herald {

// In the postmaster, when the library is preloaded.
void register_launcher();

// Keeps workers out of a database until let_database_go. 53400 if too many are held.
void hold_database(Oid database);
// Ends the workers of a held database and waits until they have ended.
void end_workers(Oid database);
void let_database_go(Oid database);
bool database_is_held(Oid database);

// The database is gone, and its buses with it.
void forget_database(Oid database);

// The extension was dropped: the bus is freed as soon as its workers have ended.
void retire_bus(Bus& bus);

}  // namespace herald
