// What herald.engine and herald.senders show.

#include "engine.h"
#include "register.h"
#include "scoped.h"
#include "tier.h"

namespace herald {

namespace {

Datum wall_clock(std::int64_t monotonic) {
    return TimestampTzGetDatum(GetCurrentTimestamp() - (monotonic_us() - monotonic));
}

bool holds(const Hold::View& hold) {
    return hold.state != Hold::State::kIdle;
}

const char* state_name(Hold::State state) {
    switch (state) {
        case Hold::State::kIdle:
            return "idle";
        case Hold::State::kOpen:
            return "open";
        case Hold::State::kLate:
            return "late";
        case Hold::State::kCommitting:
            return "committing";
    }
    return "";
}

template <typename Each>
void each_slot(const Bus& bus, Each&& each) {
    for (int i = 0; i < engine->slot_count; ++i) {
        const Slot& slot = engine->slots[i];
        if (slot.order.load() == order_name(bus)) each(slot, slot.near.view(), slot.far.view());
    }
}

}  // namespace

HERALD_FUNCTION(herald_engine_state) {
    enum : int {
        kLoaded,
        kNextPosition,
        kHorizon,
        kReservedTo,
        kAnnouncedTo,
        kSenders,
        kOldestSender,
        kRestampedTransactions,
        kRestampedMessages,
        kDispatcherPid,
        kDispatcherLag,
        kNotifications,
        kNotificationsPerSecond,
        kWakeUps,
        kNextDelivery,
        kStateColumns
    };
    TupleDesc description;
    if (get_call_result_type(fcinfo, nullptr, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "herald.engine_state must return a row");
    Datum values[kStateColumns] = {};
    bool nulls[kStateColumns];
    for (bool& null : nulls) null = true;
    const auto set = [&](int column, Datum value) {
        values[column] = value;
        nulls[column] = false;
    };
    const std::int64_t horizon = tier().horizon();
    set(kLoaded, BoolGetDatum(engine_loaded()));
    set(kHorizon, Int64GetDatum(horizon));
    const Bus* bus = engine_loaded() && !RecoveryInProgress() ? find_live_bus() : nullptr;
    if (bus == nullptr) {
        set(kNextPosition, Int64GetDatum(first_free_position()));
    } else {
        int senders = 0;
        std::int64_t oldest = INT64_MAX;
        each_slot(*bus, [&](const Slot&, const Hold::View& near, const Hold::View& far) {
            if (!holds(near) && !holds(far)) return;
            ++senders;
            if (holds(near)) oldest = Min(oldest, near.since);
            if (holds(far) && far.since > 0) oldest = Min(oldest, far.since);
        });
        set(kNextPosition, Int64GetDatum(bus->order.next()));
        set(kReservedTo, Int64GetDatum(bus->order.reserved_end() - 1));
        set(kAnnouncedTo, Int64GetDatum(bus->announced_to.load()));
        set(kSenders, Int32GetDatum(senders));
        if (oldest != INT64_MAX) set(kOldestSender, wall_clock(oldest));
        set(kRestampedTransactions, Int64GetDatum(bus->restamped_transactions.load()));
        set(kRestampedMessages, Int64GetDatum(bus->restamped_messages.load()));
        if (const int pid = bus->dispatcher_pid.load(); pid != 0)
            set(kDispatcherPid, Int32GetDatum(pid));
        set(kDispatcherLag, Int64GetDatum(Max(0, horizon - bus->announced_to.load())));
        set(kNotifications, Int64GetDatum(bus->notifications.load()));
        set(kNotificationsPerSecond,
            Float8GetDatum(static_cast<double>(bus->notifications_per_second.load()) / 1000));
        set(kWakeUps, Int64GetDatum(bus->wake_ups.load()));
        if (const std::int64_t due = bus->next_delivery.load(); due != kNoDelivery)
            set(kNextDelivery, TimestampTzGetDatum(due));
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(description, values, nulls)));
}

HERALD_FUNCTION(herald_engine_senders) {
    constexpr int kSenderColumns = 5;
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    const Bus* bus = engine_loaded() && !RecoveryInProgress() ? find_live_bus() : nullptr;
    if (bus == nullptr) return 0;
    each_slot(*bus, [&](const Slot& slot, const Hold::View& near, const Hold::View& far) {
        const auto put = [&](const Hold::View& hold, const char* kind) {
            if (!holds(hold)) return;
            Datum values[kSenderColumns] = {
                Int32GetDatum(slot.pid.load()), hold.since > 0 ? wall_clock(hold.since) : 0,
                Int64GetDatum(hold.low),        CStringGetTextDatum(state_name(hold.state)),
                CStringGetTextDatum(kind),
            };
            bool nulls[kSenderColumns] = {false, hold.since == 0, false, false, false};
            tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
        };
        put(near, "near");
        put(far, "far");
    });
    return 0;
}

}  // namespace herald
