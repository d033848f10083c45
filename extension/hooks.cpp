#include "hooks.h"

#include "compat.h"
#include "engine.h"
#include "launcher.h"
#include "listeners.h"
#include "log.h"
#include "register.h"

namespace herald {

namespace {

constinit ProcessUtility_hook_type next_utility = nullptr;
constinit object_access_hook_type next_object_access = nullptr;

constinit bool created_extension = false;  // or updated it, in this transaction; perhaps ours
constinit Oid dropped_log = InvalidOid;
constinit bool made_database = false;  // in this transaction; may be with the extension in it

bool option_is_given(const List* options, const char* name, const char** value) {
    ListCell* cell = nullptr;
    foreach (cell, options) {
        auto* option = lfirst_node(DefElem, cell);
        if (strcmp(option->defname, name) != 0 || option->arg == nullptr) continue;
        *value = defGetString(option);
        return true;
    }
    return false;
}

// As PostgreSQL asks it: whether CREATE DATABASE may take this one as its template.
bool may_copy_database(Oid database) {
    if (superuser()) return true;
    HeapTuple role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
    if (!HeapTupleIsValid(role)) return false;
    const bool may_create = reinterpret_cast<Form_pg_authid>(GETSTRUCT(role))->rolcreatedb;
    ReleaseSysCache(role);
    HeapTuple source = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
    if (!HeapTupleIsValid(source)) return false;
    const bool is_template = reinterpret_cast<Form_pg_database>(GETSTRUCT(source))->datistemplate;
    ReleaseSysCache(source);
    return may_create && (is_template || owns_database(database));
}

// The database whose other connections would make a statement fail, if the user may run it at all;
// otherwise InvalidOid, and PostgreSQL refuses it.
Oid disturbed_database(const Node* statement) {
    const char* name = nullptr;
    const char* value = nullptr;
    switch (nodeTag(statement)) {
        case T_CreatedbStmt:
            if (!option_is_given(reinterpret_cast<const CreatedbStmt*>(statement)->options,
                                 "template", &name))
                name = "template1";
            break;
        case T_DropdbStmt:
            name = reinterpret_cast<const DropdbStmt*>(statement)->dbname;
            break;
        case T_RenameStmt: {
            const auto* rename = reinterpret_cast<const RenameStmt*>(statement);
            if (rename->renameType == OBJECT_DATABASE) name = rename->subname;
            break;
        }
        case T_AlterDatabaseStmt: {
            const auto* alter = reinterpret_cast<const AlterDatabaseStmt*>(statement);
            if (option_is_given(alter->options, "tablespace", &value)) name = alter->dbname;
            break;
        }
        default:
            break;
    }
    const Oid database = name == nullptr ? InvalidOid : get_database_oid(name, true);
    if (!OidIsValid(database)) return InvalidOid;
    const bool may = nodeTag(statement) == T_CreatedbStmt ? may_copy_database(database)
                                                          : owns_database(database);
    return may ? database : InvalidOid;
}

void on_utility(PlannedStmt* planned, const char* query, bool read_only_tree,
                ProcessUtilityContext context, ParamListInfo parameters,
                QueryEnvironment* environment, DestReceiver* destination,
                QueryCompletion* completion) {
    const Node* statement = planned->utilityStmt;
    switch (nodeTag(statement)) {
        case T_ListenStmt:
            note_listen(reinterpret_cast<const ListenStmt*>(statement)->conditionname);
            break;
        case T_UnlistenStmt:
            note_unlisten(reinterpret_cast<const UnlistenStmt*>(statement)->conditionname);
            break;
        case T_DiscardStmt:
            if (reinterpret_cast<const DiscardStmt*>(statement)->target == DISCARD_ALL)
                note_unlisten(nullptr);
            break;
        default:
            break;
    }
    const auto run = [&] {
        const ProcessUtility_hook_type next =
            next_utility != nullptr ? next_utility : standard_ProcessUtility;
        next(planned, query, read_only_tree, context, parameters, environment, destination,
             completion);
    };
    const bool begins = context == PROCESS_UTILITY_TOPLEVEL;
    const Oid database =
        begins && !RecoveryInProgress() ? disturbed_database(statement) : InvalidOid;
    if (!OidIsValid(database)) {
        run();
        return;
    }
    const bool drops = nodeTag(statement) == T_DropdbStmt;
    made_database = nodeTag(statement) == T_CreatedbStmt;
    const auto let_go = [](int, Datum held) { let_database_go(DatumGetObjectId(held)); };
    const pg_on_exit_callback clean_up = let_go;
    hold_database(database);
    PG_ENSURE_ERROR_CLEANUP(clean_up, ObjectIdGetDatum(database));
    {
        end_workers(database);
        run();
        if (drops) forget_database(database);
    }
    PG_END_ENSURE_ERROR_CLEANUP(clean_up, ObjectIdGetDatum(database));
    let_database_go(database);
}

void on_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
                      void* argument) {
    if (next_object_access != nullptr)
        next_object_access(access, class_id, object_id, sub_id, argument);
    if ((access == OAT_POST_CREATE || access == OAT_POST_ALTER) && class_id == ExtensionRelationId)
        created_extension = true;  // or updated it to a version that has a dispatcher
    if (access == OAT_DROP && class_id == RelationRelationId &&
        find_bus(MyDatabaseId, object_id) != nullptr)
        dropped_log = object_id;
}

}  // namespace

void install_hooks() {
    next_utility = ProcessUtility_hook;
    ProcessUtility_hook = on_utility;
    next_object_access = object_access_hook;
    object_access_hook = on_object_access;
}

bool log_dropped_now() {
    return OidIsValid(dropped_log);
}

bool hooks_have_something() {
    return created_extension || made_database || OidIsValid(dropped_log);
}

void hooks_before_commit() {
    // A DROP may have been rolled back to a savepoint.
    if (OidIsValid(dropped_log) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(dropped_log)))
        dropped_log = InvalidOid;
    check_new_bus();
    if (!created_extension) return;
    created_extension = false;
    if (!OidIsValid(get_extension_oid("pg_herald", true)) || !log_exists() || !registers_exist())
        return;
    Bus& bus = live_bus();
    bus.rung = false;
    bus.wanted = true;  // the launcher is woken after the commit
    created_extension = true;
}

void hooks_transaction_ended(bool committed) {
    if (created_extension && committed) wake_launcher();
    created_extension = false;
    if (made_database && committed) {  // only now can the launcher see it
        engine->look_again = true;
        wake_launcher();
    }
    made_database = false;
    if (OidIsValid(dropped_log) && committed) {
        if (Bus* bus = find_bus(MyDatabaseId, dropped_log)) retire_bus(*bus);
    }
    dropped_log = InvalidOid;
    forget_new_bus(committed);
}

}  // namespace herald
