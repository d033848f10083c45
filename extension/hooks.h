// Statements of others that the engine has to know of: LISTEN and its kin, and those that other
// connections to a database would disturb, such as DROP DATABASE.
#pragma once

namespace herald {

void install_hooks();

// Whether this transaction has dropped the log of this database.
bool log_dropped_now();

// Whether this transaction has done something that others are told of when it commits.
bool hooks_have_something();

// At the end of a transaction: what it created or dropped.
void hooks_before_commit();
void hooks_transaction_ended(bool committed);

}  // namespace herald
