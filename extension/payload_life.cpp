#include "payload_life.h"

#include <cstring>

#include "check.h"
#include "engine.h"
#include "keeper.h"
#include "log.h"
#include "scoped.h"
#include "settings.h"
#include "waste.h"

namespace herald {

namespace {

// Without the engine: this session's.
constinit RecentReads own_reads = {};

// Calls `work(reads)` while nobody else does.
template <typename Work>
void with_reads(Work&& work) {
    Bus* bus = engine_loaded() ? find_live_bus() : nullptr;
    if (bus == nullptr) {
        work(own_reads);
    } else {
        with_lwlock(bus->lock, LW_EXCLUSIVE, [&] { work(bus->reads); });
    }
}

// Rolled back, the note is not there; nor is it known to be while another is not over.
bool is_there(TransactionId noted) {
    return TransactionIdIsCurrentTransactionId(noted) || TransactionIdDidCommit(noted);
}

// Whether a read that has been noted goes on to `to`.
bool goes_on(const UuidBytes& payload, Oid role, std::int64_t from, std::int64_t to) {
    const std::int64_t now = monotonic_us();
    bool gone_on = false;
    for (int number = -1; !gone_on && from > 0;) {
        RecentReads::Read seen = {};
        with_reads([&](RecentReads& reads) {
            number = reads.find(payload, role, from, now, number);
            if (number >= 0) seen = reads[number];
        });
        if (number < 0) break;
        if (!is_there(seen.transaction)) continue;
        with_reads([&](RecentReads& reads) { gone_on = reads.go_on(number, seen, to); });
    }
    return gone_on;
}

// By the table itself, so that a read-only transaction is no way around it.
void audit(const Payload& payload, const pg_uuid_t& message, std::int64_t from, std::int64_t to) {
    const Oid role = GetOuterUserId();
    UuidBytes id;
    std::memcpy(id.data(), payload.id.data, id.size());
    if (goes_on(id, role, from, to)) return;
    NameData name;
    (void)namestrcpy(&name, GetUserNameFromId(role, false));
    const pg_uuid_t none = {};
    const Datum values[] = {TimestampTzGetDatum(GetCurrentTimestamp()), UUIDPGetDatum(&payload.id),
                            UUIDPGetDatum(&message), NameGetDatum(&name), Int64GetDatum(from)};
    const bool nulls[] = {false, false, std::memcmp(&message, &none, sizeof none) == 0, false,
                          false};
    const Oid table = get_relname_relid("payload_audit", log_schema());
    as_owner([&] {
        with_table_writer(table, [&](TableWriter& writer) { writer.append(values, nulls); });
    });
    const RecentReads::Read read = {id, role, GetCurrentTransactionId(), to, monotonic_us()};
    with_reads([&](RecentReads& reads) { reads.add(read); });
}

void note_time(const Payload& payload) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    // A transaction with one old snapshot could fail here, if another reader notes it just now.
    if (XactReadOnly || IsolationUsesXactSnapshot()) return;
    const TimestampTz now = GetCurrentTimestamp();
    if (payload.accessed_at != 0 && now - payload.accessed_at < USECS_PER_MINUTE) return;
    with_fresh_spi([&] {
        Datum values[] = {UUIDPGetDatum(&payload.id), TimestampTzGetDatum(now)};
        run_fresh(plan.get("UPDATE herald.payload SET accessed_at = $2 WHERE id ="
                           " (SELECT id FROM herald.payload WHERE id = $1"
                           " AND (accessed_at IS NULL OR accessed_at <= $2 - interval '1 minute')"
                           " FOR NO KEY UPDATE SKIP LOCKED)",
                           {UUIDOID, TIMESTAMPTZOID}),
                  values, nullptr, SPI_OK_UPDATE);
    });
}

// A payload from a dump: until its messages are there as well, it must not be taken for one that
// nobody sends.
void restore_row(const Datum* values, const bool* nulls) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    constexpr int kColumns = 13;
    constexpr std::int64_t kAtLeast = 86'400;  // seconds
    const std::int64_t timeout = Max(kAtLeast, setting_upload_timeout);
    char shown_nulls[kColumns + 1] = {};
    Datum arguments[kColumns];
    for (int i = 0; i < kColumns - 1; ++i) {
        arguments[i] = values[i];
        shown_nulls[i] = nulls[i] ? 'n' : ' ';
    }
    arguments[kColumns - 1] =
        TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000 * timeout));
    shown_nulls[kColumns - 1] = ' ';
    with_owner_spi([&] {
        const int code = SPI_execute_plan(
            plan.get("INSERT INTO herald.payload (id, segment, state, content_type, compression,"
                     " bytes, stored_bytes, chunks, digest, owner, created_at, completed_at,"
                     " accessed_at, expires_at)"
                     " VALUES ($1, $2, 'complete', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                     {UUIDOID, INT8OID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, BYTEAOID,
                      NAMEOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}),
            arguments, shown_nulls, false, 0);
        if (code != SPI_OK_INSERT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
    });
    wish_for_keeper(monotonic_us() + 1'000'000 * timeout);
}

}  // namespace

void note_access(const Payload& payload, const pg_uuid_t& message, std::int64_t from,
                 std::int64_t to) {
    if (payload.state != PayloadState::kComplete || RecoveryInProgress()) return;
    note_time(payload);
    if (setting_audit) audit(payload, message, from, to);
}

HERALD_FUNCTION(herald_free_chunks) {
    const pg_uuid_t payload = *PG_GETARG_UUID_P(0);
    const std::int64_t segment = PG_GETARG_INT64(1);
    if (OidIsValid(lock_chunk_table(segment, RowExclusiveLock))) delete_chunks({payload, segment});
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_remove_payloads) {
    const std::int64_t segment = PG_GETARG_INT64(0);
    const Oid table = try_lock_chunk_table(segment);
    if (!OidIsValid(table)) PG_RETURN_BOOL(false);
    // Whoever used it has ended; what he has left behind is seen now.
    bool removed = false;
    with_fresh_spi([&] {
        Datum values[] = {Int64GetDatum(segment)};
        static constinit KeptPlan held{KeptPlan::Planned::kOnce};
        run_read_only(held.get("SELECT WHERE herald.payloads_held_by($1) IS NULL", {INT8OID}),
                      values, nullptr, 1);
        if (SPI_processed == 0) return;
        static constinit KeptPlan audit_plan{KeptPlan::Planned::kOnce};
        run_fresh(audit_plan.get("DELETE FROM herald.payload_audit AS a USING herald.payload AS p"
                                 " WHERE a.payload = p.id AND p.segment = $1",
                                 {INT8OID}),
                  values, nullptr, SPI_OK_DELETE);
        static constinit KeptPlan payload_plan{KeptPlan::Planned::kOnce};
        run_fresh(payload_plan.get("DELETE FROM herald.payload WHERE segment = $1", {INT8OID}),
                  values, nullptr, SPI_OK_DELETE);
        static constinit KeptPlan book_plan{KeptPlan::Planned::kOnce};
        run_fresh(book_plan.get("DELETE FROM herald.payload_book WHERE segment = $1", {INT8OID}),
                  values, nullptr, SPI_OK_DELETE);
        discard_member_table(table);
        removed = true;
    });
    PG_RETURN_BOOL(removed);
}

HERALD_FUNCTION(herald_payload_restored) {
    enum : int {
        kPayloadColumn,
        kSegmentColumn,
        kTypeColumn,
        kCompressionColumn,
        kBytesColumn,
        kStoredColumn,
        kChunksColumn,
        kDigestColumn,
        kOwnerColumn,
        kCreatedColumn,
        kCompletedColumn,
        kAccessedColumn,
        kStartColumn,
        kChecksumColumn,
        kDataColumn,
        kCount
    };
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("this function is a trigger of herald.payload_restore"),
                        errhint("It cannot be called by itself.")));
    const auto* data = reinterpret_cast<const TriggerData*>(fcinfo->context);
    Datum values[kCount];
    bool nulls[kCount];
    heap_deform_tuple(data->tg_trigtuple, RelationGetDescr(data->tg_relation), values, nulls);
    const std::int64_t segment = DatumGetInt64(values[kSegmentColumn]);
    if (segment < 0 || segment > PG_INT64_MAX / kSegmentWidth)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("segment %lld of a payload does not exist",
                               static_cast<long long>(segment)),
                        errhint("Rows of this table come from a dump.")));
    Oid table = lock_chunk_table(segment, RowExclusiveLock);
    if (!OidIsValid(table)) {
        make_chunk_table(segment);
        table = lock_chunk_table(segment, RowExclusiveLock);
    }
    if (nulls[kStartColumn]) {
        restore_row(values, nulls);
    } else {
        const Datum chunk[] = {values[kPayloadColumn], values[kStartColumn],
                               Int32GetDatum(static_cast<int>(DatumGetInt64(values[kBytesColumn]))),
                               values[kChecksumColumn], values[kDataColumn]};
        const bool chunk_nulls[] = {false, false, false, nulls[kChecksumColumn],
                                    nulls[kDataColumn]};
        as_owner([&] {
            with_table_writer(table,
                              [&](TableWriter& writer) { writer.append(chunk, chunk_nulls); });
        });
    }
    return PointerGetDatum(nullptr);
}

}  // namespace herald
