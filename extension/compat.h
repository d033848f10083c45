// Differences between PostgreSQL versions, each with the upstream change that made it.
#pragma once

#include <utility>

#include "pg.h"

#if PG_VERSION_NUM < 150000
#error "pg_herald needs PostgreSQL 15 or newer"
#endif

namespace herald {

// 16: ExecInsertIndexTuples takes onlySummarizing (BRIN and HOT, commit 19d8e2308b).
inline void insert_index_entries(ResultRelInfo* relation, TupleTableSlot* slot, EState* estate) {
#if PG_VERSION_NUM >= 160000
    ExecInsertIndexTuples(relation, slot, estate, false, false, nullptr, NIL, false);
#else
    ExecInsertIndexTuples(relation, slot, estate, false, false, nullptr, NIL);
#endif
}

// 17: LockHeldByMe takes orstronger (commit cc0e7ebd30).
inline bool lock_held_by_me(const LOCKTAG* tag, LOCKMODE mode) {
#if PG_VERSION_NUM >= 170000
    return LockHeldByMe(tag, mode, false);
#else
    return LockHeldByMe(tag, mode);
#endif
}

// 17: backends are numbered by MyProcNumber (commit 024c521117); pgprocno of PGPROC is gone.
inline int my_process_number() {
#if PG_VERSION_NUM >= 170000
    return MyProcNumber;
#else
    return MyProc->pgprocno;
#endif
}

// 17: as above; a backend is found by its process id.
inline void signal_backend(pid_t pid, ProcSignalReason reason) {
#if PG_VERSION_NUM >= 170000
    (void)SendProcSignal(pid, reason, INVALID_PROC_NUMBER);
#else
    (void)SendProcSignal(pid, reason, InvalidBackendId);
#endif
}

// 17: with a table, its row type and the array type of that are members of an extension, too.
inline void add_table_to_extension(Oid table, Oid extension) {
    const auto add = [&](Oid catalog, Oid object) {
        ObjectAddress member;
        ObjectAddress owner;
        ObjectAddressSet(member, catalog, object);
        ObjectAddressSet(owner, ExtensionRelationId, extension);
        recordDependencyOn(&member, &owner, DEPENDENCY_EXTENSION);
    };
    add(RelationRelationId, table);
#if PG_VERSION_NUM >= 170000
    add(TypeRelationId, get_rel_type_id(table));
    add(TypeRelationId, get_array_type(get_rel_type_id(table)));
#endif
}

// What of pg_class says which files a relation has, and what is in them, changes sides.
// 18: relallfrozen (commit 99f8f3fbbc).
inline void exchange_file_columns(FormData_pg_class& a, FormData_pg_class& b) {
    std::swap(a.relfilenode, b.relfilenode);
    std::swap(a.reltablespace, b.reltablespace);
    std::swap(a.relpages, b.relpages);
    std::swap(a.reltuples, b.reltuples);
    std::swap(a.relallvisible, b.relallvisible);
#if PG_VERSION_NUM >= 180000
    std::swap(a.relallfrozen, b.relallfrozen);
#endif
    std::swap(a.relfrozenxid, b.relfrozenxid);
    std::swap(a.relminmxid, b.relminmxid);
}

// 16: one ownership check for all kinds of objects (commit afbfc02983).
inline bool owns_database(Oid database) {
#if PG_VERSION_NUM >= 160000
    return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
    return pg_database_ownercheck(database, GetUserId());
#endif
}

// The timeline that this server writes; not in recovery.
inline TimeLineID current_timeline() {
    return GetWALInsertionTimeLine();
}

}  // namespace herald
