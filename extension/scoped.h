// Work inside a scope, as functions that take a lambda. What they set up is undone at their end,
// or by PostgreSQL's own transaction clean-up if the lambda raises an error.
#pragma once

#include "pg.h"

namespace herald {

// The role that owns the log; internal SQL runs as it.
Oid log_owner();

namespace detail {
int enter_owner(Oid* saved_user, int* saved_context);
void leave_owner(int guc_level, Oid saved_user, int saved_context);
// Until leave_owner: rows are read in the order of an index, up to where there are enough, and
// never all of them to be sorted, whatever the planner thinks of their number.
void read_in_order();
}  // namespace detail

// Runs `work` as the log's owner with search_path = pg_catalog, pg_temp, so that internal SQL
// needs no grants to the caller and cannot be bent by the caller's own operators and functions.
template <typename Work>
void as_owner(Work&& work) {
    Oid saved_user;
    int saved_context;
    const int guc_level = detail::enter_owner(&saved_user, &saved_context);
    work();
    detail::leave_owner(guc_level, saved_user, saved_context);
}

// Runs `work` as the log's owner, connected to SPI, able to change things; also where no statement
// of a user is running: in a background worker, or at a commit.
template <typename Work>
void with_owner_spi(Work&& work) {
    as_owner([&] {
        if (SPI_connect() != SPI_OK_CONNECT) elog(ERROR, "herald: SPI_connect failed");
        PushActiveSnapshot(GetTransactionSnapshot());
        work();
        PopActiveSnapshot();
        SPI_finish();
    });
}

// Runs `work` as the log's owner, connected to SPI, with a snapshot taken now as the active one:
// everything committed before this call is visible, whatever the isolation level of the caller.
// (The calling statement's own snapshot is older; paging with it would skip messages for good.)
template <typename Work>
void with_fresh_spi(Work&& work) {
    as_owner([&] {
        detail::read_in_order();
        if (SPI_connect() != SPI_OK_CONNECT) elog(ERROR, "herald: SPI_connect failed");
        PushActiveSnapshot(GetLatestSnapshot());
        work();
        PopActiveSnapshot();
        SPI_finish();
    });
}

// A statement prepared once per backend and kept. One object per call site, in static storage.
//
// PostgreSQL plans a statement on a partitioned table anew each time, because that looks cheaper to
// it; for short ones planning takes most of the time. `kOnce` is for those whose best plan is the
// same for all parameters.
class KeptPlan {
  public:
    enum class Planned { kEachTime, kOnce };

    constexpr KeptPlan() = default;
    constexpr explicit KeptPlan(Planned planned) : planned_(planned) {}

    template <std::size_t N>
    SPIPlanPtr get(const char* sql, const Oid (&types)[N]) {
        if (plan_ == nullptr) prepare(sql, static_cast<int>(N), types);
        return plan_;
    }

    SPIPlanPtr get(const char* sql) {
        if (plan_ == nullptr) prepare(sql, 0, nullptr);
        return plan_;
    }

  private:
    void prepare(const char* sql, int count, const Oid* types);

    SPIPlanPtr plan_ = nullptr;
    Planned planned_ = Planned::kEachTime;
};

// Runs a kept plan for its rows under the active snapshot; they are in SPI_tuptable.
void run_read_only(SPIPlanPtr plan, Datum* values, const char* nulls, long max_rows);

// Runs a kept plan that locks or changes rows under the active snapshot; error unless it gives
// `expected`. Inside with_fresh_spi.
void run_fresh(SPIPlanPtr plan, Datum* values, const char* nulls, int expected);

// Runs a statement that changes something; error unless it gives `expected`.
void run_statement(const char* sql, int expected);

}  // namespace herald
