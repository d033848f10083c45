// The tier without the engine.
//
// A sender takes one lock per database before its first position and holds it until its commit or
// abort is visible (PostgreSQL releases transaction locks after that). Numbers come from a
// sequence under the lock. So positions become visible in their order: whoever sees position p
// sees every committed message below p, and none can appear there later; any snapshot is a
// consistent prefix of the log.
//
// The lock belongs to the subtransaction that took it. If that is rolled back the lock is free
// again, and positions that were handed out under it are holes.
//
// Messages are announced by NOTIFY in the sender's own transaction.

#include "announce.h"
#include "books.h"
#include "compat.h"
#include "locks.h"
#include "log.h"
#include "register.h"
#include "scoped.h"
#include "send.h"
#include "tier.h"

namespace herald {

namespace {

// The first and last position handed out since this transaction took the order; none: 0 and -1.
constinit std::int64_t first_ours = 0;
constinit std::int64_t last_ours = -1;
// Where the counter goes on when this transaction commits; 0 = where it is.
constinit std::int64_t pending_move = 0;
// Whether this backend has looked at what the server did before it was started.
constinit bool knows_the_past = false;

// Every so many positions the sender folds the counters and looks whether a segment is needed, so
// that reading the counters never scans more than this many rows.
constexpr std::int64_t kChoreInterval = 1024;

LOCKTAG order_lock() {
    return herald_lock(kOrderKey);
}

void forget() {
    first_ours = 0;
    last_ours = -1;
    pending_move = 0;
}

// With the order held, before the first number.
void learn_the_past() {
    leave_lost_positions_behind();
    // The engine was used before, and everything it handed out is decided.
    if (read_register(kHorizonRegister).flag)
        write_register(kHorizonRegister, {first_free_position() - 1, false});
    knows_the_past = true;
}

void enter() {
    const LOCKTAG tag = order_lock();
    // A subtransaction that was rolled back has let go of the order it took.
    if (!lock_held_by_me(&tag, ExclusiveLock)) forget();
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
    if (!knows_the_past) learn_the_past();
}

void expect(std::int64_t) {}

std::int64_t next_position() {
    enter();
    const Oid sequence = get_relname_relid(kPositionRegister, log_schema());
    if (!OidIsValid(sequence)) elog(ERROR, "herald.%s does not exist", kPositionRegister);
    const std::int64_t pos = nextval_internal(sequence, false);
    if (first_ours == 0) first_ours = pos;
    last_ours = pos;
    return pos;
}

bool is_ours(std::int64_t pos) {
    const LOCKTAG tag = order_lock();
    return pos >= first_ours && pos <= last_ours && lock_held_by_me(&tag, ExclusiveLock);
}

bool has_claims() {
    return last_ours >= 0 || pending_move > 0;
}

bool is_moving() {
    return false;
}

std::int64_t unsettled() {
    return 0;
}

void lock_key(std::string_view, std::string_view) {}  // the order keeps everybody away

void stored(const Row& row, bool announced) {
    if (announced) announce(row);
}

void do_chores(std::int64_t pos, int sent) {
    if (pos % kChoreInterval >= sent) return;
    if (pos % kSegmentWidth > kSegmentWidth / 2) make_segment_ahead(pos);
    (void)fold_counters();
}

std::int64_t horizon() {
    // This before the flag: if the flag is still set, no plain sender has moved the counter.
    const std::int64_t free = first_free_position();
    const RegisterValue decided = read_register(kHorizonRegister);
    if (decided.flag) return RecoveryInProgress() ? decided.value : free - 1;
    static constinit KeptPlan plan;
    std::int64_t last = 0;
    with_fresh_spi([&] {
        // The fold's mark stays when the messages below it have gone.
        run_read_only(plan.get("SELECT greatest((SELECT max(pos) FROM herald.message),"
                               " (SELECT max(folded_to) FROM herald.state), 0::bigint)"),
                      nullptr, nullptr, 1);
        bool null = false;
        last = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    });
    return Max(last, decided.value);
}

std::int64_t decided() {
    const LOCKTAG order = herald_lock(kOrderKey);
    if (lock_held_by_me(&order, ExclusiveLock) ||
        LockAcquire(&order, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
        return horizon();
    const std::int64_t free = first_free_position();
    (void)LockRelease(&order, ExclusiveLock, false);
    return free - 1;
}

void settle(std::int64_t) {}  // whoever has the order knows that all is decided

std::int64_t discard_own(Datum) {  // they never move
    return 0;
}

void move_counter_at_commit(std::int64_t pos) {
    pending_move = pos;
}

void restored(std::int64_t pos) {
    if (pos <= pending_move) return;
    enter();
    pending_move = pos;
}

void before_commit() {
    ring_doorbell();
    if (pending_move > 0 && segment_exists(pending_move) && pending_move > first_free_position())
        write_register(kPositionRegister, {pending_move, false});
    pending_move = 0;
}

void after_end(bool) {
    forget();
    forget_doorbell();
}

}  // namespace

const Tier kPlainTier = {
    .enter = enter,
    .expect = expect,
    .next_position = next_position,
    .is_ours = is_ours,
    .has_claims = has_claims,
    .is_moving = is_moving,
    .unsettled = unsettled,
    .lock_key = lock_key,
    .stored = stored,
    .do_chores = do_chores,
    .horizon = horizon,
    .decided = decided,
    .administer = enter,
    .settle = settle,
    .discard_own = discard_own,
    .move_counter_at_commit = move_counter_at_commit,
    .restored = restored,
    .next_free = first_free_position,
    .before_commit = before_commit,
    .after_end = after_end,
};

}  // namespace herald
