#include "position.h"

#include "compat.h"
#include "log.h"
#include "scoped.h"

namespace herald {

namespace {

// The first and last position handed out since this transaction took the order; none: 0 and -1.
constinit std::int64_t first_ours = 0;
constinit std::int64_t last_ours = -1;
// Where the counter goes on when this transaction commits; 0 = where it is.
constinit std::int64_t pending_move = 0;

// In the space of advisory locks, with a fourth field that the SQL functions cannot produce (they
// use 1 and 2), so that no application can collide with it.
constexpr std::uint32_t kOrderKey = 0x68657261;
constexpr std::uint16_t kLockClass = 7;

LOCKTAG order_lock() {
    LOCKTAG tag;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, kOrderKey, 0, kLockClass);
    return tag;
}

Oid position_sequence() {
    const Oid sequence = get_relname_relid("message_pos_seq", log_schema());
    if (!OidIsValid(sequence)) elog(ERROR, "herald.message_pos_seq does not exist");
    return sequence;
}

}  // namespace

void take_order() {
    const LOCKTAG tag = order_lock();
    // A subtransaction that was rolled back has let go of the order it took.
    if (!lock_held_by_me(&tag, ExclusiveLock)) forget_positions();
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
}

std::int64_t next_position() {
    take_order();
    const std::int64_t pos = nextval_internal(position_sequence(), false);
    if (first_ours == 0) first_ours = pos;
    last_ours = pos;
    return pos;
}

bool position_is_ours(std::int64_t pos) {
    const LOCKTAG tag = order_lock();
    return pos >= first_ours && pos <= last_ours && lock_held_by_me(&tag, ExclusiveLock);
}

std::int64_t read_horizon() {
    static constinit KeptPlan plan;
    // The fold's mark stays when the messages below it have gone.
    constexpr const char* kSql =
        "SELECT greatest((SELECT max(pos) FROM herald.message),"
        " (SELECT folded_to FROM herald.state), 0::bigint)";
    run_read_only(plan.get(kSql), nullptr, nullptr, 1);
    bool null = false;
    return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
}

void move_counter_at_commit(std::int64_t pos) {
    pending_move = pos;
}

void move_counter_now() {
    if (pending_move > 0 && segment_exists(pending_move))
        (void)DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(position_sequence()),
                                  Int64GetDatum(pending_move), BoolGetDatum(false));
    pending_move = 0;
}

bool has_positions() {
    return last_ours >= 0;
}

void forget_positions() {
    first_ours = 0;
    last_ours = -1;
    pending_move = 0;
}

}  // namespace herald
