#include "scoped.h"

#include "log.h"

namespace herald {

Oid log_owner() {
    const Oid table = log_table();
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for relation %u", table);
    const Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return owner;
}

namespace detail {

namespace {

void set_for_now(const char* name, const char* value) {
    (void)set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
                            false);
}

}  // namespace

int enter_owner(Oid* saved_user, int* saved_context) {
    GetUserIdAndSecContext(saved_user, saved_context);
    SetUserIdAndSecContext(
        log_owner(), *saved_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
    const int guc_level = NewGUCNestLevel();
    set_for_now("search_path", "pg_catalog, pg_temp");
    return guc_level;
}

void read_in_order() {
    set_for_now("enable_sort", "off");
    set_for_now("jit", "off");  // a sort that cannot be avoided now looks expensive enough for it
}

void leave_owner(int guc_level, Oid saved_user, int saved_context) {
    AtEOXact_GUC(true, guc_level);
    SetUserIdAndSecContext(saved_user, saved_context);
}

}  // namespace detail

void KeptPlan::prepare(const char* sql, int count, const Oid* types) {
    SPIPlanPtr plan = SPI_prepare_cursor(sql, count, const_cast<Oid*>(types),
                                         planned_ == Planned::kOnce ? CURSOR_OPT_GENERIC_PLAN : 0);
    if (plan == nullptr) elog(ERROR, "herald: cannot prepare: %s", sql);
    if (SPI_keepplan(plan) != 0) elog(ERROR, "herald: cannot keep the plan of: %s", sql);
    plan_ = plan;
}

void run_read_only(SPIPlanPtr plan, Datum* values, const char* nulls, long max_rows) {
    const int code = SPI_execute_plan(plan, values, nulls, true, max_rows);
    if (code != SPI_OK_SELECT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
}

void run_fresh(SPIPlanPtr plan, Datum* values, const char* nulls, int expected) {
    const int code = SPI_execute_snapshot(plan, values, nulls, GetActiveSnapshot(), InvalidSnapshot,
                                          false, true, 0);
    if (code != expected) elog(ERROR, "herald: %s", SPI_result_code_string(code));
}

void run_statement(const char* sql, int expected) {
    const int code = SPI_execute(sql, false, 0);
    if (code != expected) elog(ERROR, "herald: %s: %s", SPI_result_code_string(code), sql);
}

}  // namespace herald
