#include "payload.h"

#include <algorithm>
#include <cstring>

#include "announce.h"
#include "check.h"
#include "core/json_escape.h"
#include "engine.h"
#include "identity.h"
#include "keeper.h"
#include "log.h"
#include "scoped.h"
#include "settings.h"
#include "tier.h"

namespace herald {

namespace {

constexpr const char* kStates[] = {"pending", "complete", "error", "expired"};

std::int64_t max_bytes() {
    return std::int64_t{1024} * setting_max_payload;
}

TimestampTz expiry() {
    return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
                                       std::int64_t{1000} * setting_upload_timeout);
}

void wish_for_expiry() {
    wish_for_keeper(monotonic_us() + std::int64_t{1'000'000} * setting_upload_timeout);
}

[[noreturn]] void refuse_unknown(const pg_uuid_t& id) {
    ereport(ERROR,
            (errcode(ERRCODE_NO_DATA_FOUND), errmsg("there is no payload %s", show_payload(id)),
             errhint("It may have expired, or have gone with its messages.")));
    pg_unreachable();
}

[[noreturn]] void refuse_state(const Payload& payload, PayloadState wanted) {
    ereport(
        ERROR,
        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
         errmsg("payload %s is %s, not %s", show_payload(payload.id),
                kStates[static_cast<int>(payload.state)], kStates[static_cast<int>(wanted)]),
         wanted == PayloadState::kPending ? errhint("Begin another one with herald.payload_open.")
                                          : errhint("herald.payload_close completes an upload.")));
    pg_unreachable();
}

void require_size(std::int64_t bytes) {
    if (bytes <= max_bytes()) return;
    ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("a payload of %lld bytes; the limit is %lld",
                           static_cast<long long>(bytes), static_cast<long long>(max_bytes())),
                    errhint("The setting herald.max_payload is the limit.")));
}

bool is_owner(const Payload& payload, Oid role) {
    const Oid owner = get_role_oid(NameStr(payload.owner), true);
    return OidIsValid(owner) && has_privs_of_role(role, owner);
}

// Reads a row; false if there is none. What it points to is in the current memory context.
bool find_payload(const pg_uuid_t& id, Payload* payload) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    MemoryContext caller = CurrentMemoryContext;
    bool found = false;
    with_fresh_spi([&] {
        Datum values[] = {UUIDPGetDatum(&id)};
        run_read_only(plan.get("SELECT segment, state, compression, bytes, stored_bytes,"
                               " chunks, expected_bytes, content_type, owner, completed_at,"
                               " expires_at, accessed_at, digest, hash_state"
                               " FROM herald.payload WHERE id = $1",
                               {UUIDOID}),
                      values, nullptr, 1);
        if (SPI_processed == 0) return;
        bool null = false;
        const auto column = [&](int number) {
            return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
        };
        const auto time = [&](int number) {
            const Datum value = column(number);
            return null ? 0 : DatumGetTimestampTz(value);
        };
        *payload = {};
        payload->id = id;
        payload->segment = DatumGetInt64(column(1));
        const std::string_view state = text_view(column(2));
        for (int i = 0; i < static_cast<int>(lengthof(kStates)); ++i) {
            if (state == kStates[i]) payload->state = static_cast<PayloadState>(i);
        }
        payload->compression = require_compression(text_view(column(3)));
        payload->bytes = DatumGetInt64(column(4));
        payload->stored_bytes = DatumGetInt64(column(5));
        payload->chunks = DatumGetInt64(column(6));
        payload->expected = DatumGetInt64(column(7));
        if (null) payload->expected = -1;
        const Datum type = column(8);
        MemoryContext spi = MemoryContextSwitchTo(caller);
        payload->content_type = text_datum(text_view(type));
        MemoryContextSwitchTo(spi);
        payload->owner = *DatumGetName(column(9));
        payload->completed_at = time(10);
        payload->expires_at = time(11);
        payload->accessed_at = time(12);
        if (const Datum digest = column(13); !null) {
            const std::string_view bytes = text_view(digest);
            payload->has_digest = bytes.size() == sizeof payload->digest;
            if (payload->has_digest) std::memcpy(payload->digest, bytes.data(), bytes.size());
        }
        if (const Datum hash = column(14); !null)
            payload->has_hash = RunningDigest::resume(text_view(hash), &payload->hash);
        found = true;
    });
    return found;
}

// False if the row is not there any more.
bool lock_row(const pg_uuid_t& id, bool to_change) {
    static constinit KeptPlan change{KeptPlan::Planned::kOnce};
    static constinit KeptPlan send{KeptPlan::Planned::kOnce};
    bool locked = false;
    with_fresh_spi([&] {
        Datum values[] = {UUIDPGetDatum(&id)};
        run_fresh(to_change ? change.get("SELECT FROM herald.payload WHERE id = $1"
                                         " FOR NO KEY UPDATE",
                                         {UUIDOID})
                            : send.get("SELECT FROM herald.payload WHERE id = $1 FOR KEY SHARE",
                                       {UUIDOID}),
                  values, nullptr, SPI_OK_SELECT);
        locked = SPI_processed > 0;
    });
    return locked;
}

Datum bytes_datum(const void* bytes, std::size_t length) {
    return text_datum({static_cast<const char*>(bytes), length});  // bytea is as text
}

void insert_row(const Payload& payload) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    with_owner_spi([&] {
        Datum values[] = {
            UUIDPGetDatum(&payload.id),
            Int64GetDatum(payload.segment),
            text_datum(kStates[static_cast<int>(payload.state)]),
            payload.content_type,
            text_datum(compression_name(payload.compression)),
            Int64GetDatum(payload.bytes),
            Int64GetDatum(payload.stored_bytes),
            Int64GetDatum(payload.chunks),
            Int64GetDatum(payload.expected),
            NameGetDatum(&payload.owner),
            TimestampTzGetDatum(payload.completed_at),
            TimestampTzGetDatum(payload.expires_at),
            payload.has_digest ? bytes_datum(payload.digest, sizeof payload.digest) : 0,
            payload.has_hash ? bytes_datum(payload.hash.state().data(), RunningDigest::kStateBytes)
                             : 0};
        char nulls[lengthof(values) + 1] = "              ";
        if (payload.expected < 0) nulls[8] = 'n';
        if (payload.completed_at == 0) nulls[10] = 'n';
        if (!payload.has_digest) nulls[12] = 'n';
        if (!payload.has_hash) nulls[13] = 'n';
        const int code = SPI_execute_plan(
            plan.get("INSERT INTO herald.payload (id, segment, state, content_type, compression,"
                     " bytes, stored_bytes, chunks, expected_bytes, owner, completed_at,"
                     " expires_at, digest, hash_state)"
                     " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                     {UUIDOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID,
                      INT8OID, NAMEOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID}),
            values, nulls, false, 0);
        if (code != SPI_OK_INSERT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
    });
}

// What changes of one that the caller has locked.
void update_row(const Payload& payload, const char* error) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    with_fresh_spi([&] {
        Datum values[] = {
            UUIDPGetDatum(&payload.id),
            text_datum(kStates[static_cast<int>(payload.state)]),
            Int64GetDatum(payload.bytes),
            Int64GetDatum(payload.stored_bytes),
            Int64GetDatum(payload.chunks),
            TimestampTzGetDatum(payload.completed_at),
            TimestampTzGetDatum(payload.expires_at),
            payload.has_digest ? bytes_datum(payload.digest, sizeof payload.digest) : 0,
            payload.has_hash ? bytes_datum(payload.hash.state().data(), RunningDigest::kStateBytes)
                             : 0,
            error != nullptr ? text_datum(error) : 0};
        char nulls[lengthof(values) + 1] = "          ";
        if (payload.completed_at == 0) nulls[5] = 'n';
        if (payload.expires_at == 0) nulls[6] = 'n';
        if (!payload.has_digest) nulls[7] = 'n';
        if (!payload.has_hash) nulls[8] = 'n';
        if (error == nullptr) nulls[9] = 'n';
        run_fresh(plan.get("UPDATE herald.payload SET state = $2, bytes = $3, stored_bytes = $4,"
                           " chunks = $5, completed_at = $6, expires_at = $7, digest = $8,"
                           " hash_state = $9, error = $10 WHERE id = $1",
                           {UUIDOID, TEXTOID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID,
                            TIMESTAMPTZOID, BYTEAOID, BYTEAOID, TEXTOID}),
                  values, nulls, SPI_OK_UPDATE);
    });
}

// The segment that a payload begun now belongs to, its table locked.
void choose_segment(Payload& payload) {
    for (;;) {
        payload.segment = tier().next_free() / kSegmentWidth;
        payload.table = lock_chunk_table(payload.segment, RowExclusiveLock);
        if (OidIsValid(payload.table)) return;
        make_chunk_table(payload.segment);
    }
}

Payload new_payload(Datum content_type, Compression compression, std::int64_t expected) {
    PreventCommandIfReadOnly("storing a payload");
    PreventCommandIfParallelMode("storing a payload");
    require_content_type(text_view(content_type));
    require_size(expected);
    Payload payload{};
    payload.id = *DatumGetUUIDP(new_message_id(GetCurrentTimestamp()));
    payload.state = PayloadState::kPending;
    payload.compression = compression;
    payload.expected = expected;
    payload.content_type = content_type;
    (void)namestrcpy(&payload.owner, GetUserNameFromId(GetUserId(), false));
    payload.expires_at = expiry();
    payload.has_hash = true;
    payload.hash = RunningDigest::begin();
    choose_segment(payload);
    wish_for_expiry();
    return payload;
}

void store(Payload& payload, std::string_view content) {
    payload.hash.add(content);
    as_owner([&] {
        ChunkWriter writer(payload.place(), payload.table, payload.compression);
        const StoredSize stored = writer.append(payload.bytes, content);
        payload.stored_bytes += stored.bytes;
        payload.chunks += stored.chunks;
        writer.close();
    });
    payload.bytes += static_cast<std::int64_t>(content.size());
}

// Checks the digest and turns to complete, in memory.
void finish(Payload& payload, const std::uint8_t* wanted) {
    const auto digest = payload.hash.digest();
    std::memcpy(payload.digest, digest.data(), digest.size());
    if (wanted != nullptr && std::memcmp(wanted, payload.digest, digest.size()) != 0)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("the SHA-256 of payload %s is %s, not %s", show_payload(payload.id),
                               digest_text(payload.digest), digest_text(wanted)),
                        errhint("What was stored is not what was meant; an upload is still "
                                "pending: go on with it, or herald.payload_abort.")));
    payload.has_digest = true;
    payload.has_hash = false;
    payload.state = PayloadState::kComplete;
    payload.completed_at = GetCurrentTimestamp();
    payload.expires_at = expiry();
}

// One message that this payload is in, under the active snapshot; false if it is in none.
bool find_message_of(const pg_uuid_t& id, pg_uuid_t* message) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    Datum values[] = {UUIDPGetDatum(&id)};
    run_read_only(plan.get("SELECT id FROM herald.messages WHERE payload = $1 LIMIT 1", {UUIDOID}),
                  values, nullptr, 1);
    if (SPI_processed == 0) return false;
    bool null = false;
    *message =
        *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
    return true;
}

bool was_sent(const pg_uuid_t& id) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    Datum values[] = {UUIDPGetDatum(&id)};
    run_read_only(plan.get("SELECT FROM herald.message WHERE payload = $1 LIMIT 1", {UUIDOID}),
                  values, nullptr, 1);
    return SPI_processed > 0;
}

// Whether `role` may read a complete payload now.
bool may_read(const Payload& payload, Oid role, pg_uuid_t* message) {
    const bool own = payload.expires_at != 0 && is_owner(payload, role);
    bool may = false;
    with_fresh_spi(
        [&] { may = find_message_of(payload.id, message) || (own && !was_sent(payload.id)); });
    return may;
}

}  // namespace

const char* digest_text(const std::uint8_t* digest) {
    char* text = static_cast<char*>(palloc0(2 * RunningDigest::kDigestBytes + 1));
    (void)hex_encode(reinterpret_cast<const char*>(digest), RunningDigest::kDigestBytes, text);
    return text;
}

Payload store_payload(std::string_view content, Datum content_type, Compression compression,
                      const std::uint8_t* digest) {
    const auto bytes = static_cast<std::int64_t>(content.size());
    Payload payload = new_payload(content_type, compression, bytes);
    payload.expected = -1;
    store(payload, content);
    finish(payload, digest);
    insert_row(payload);
    CommandCounterIncrement();
    return payload;
}

Payload open_payload(Datum content_type, Compression compression, std::int64_t expected) {
    Payload payload = new_payload(content_type, compression, expected);
    insert_row(payload);
    return payload;
}

void require_chunks_kept(const pg_uuid_t& id) {
    static constinit KeptPlan plan{KeptPlan::Planned::kOnce};
    Datum values[] = {UUIDPGetDatum(&id)};
    run_read_only(plan.get("SELECT FROM herald.payload"
                           " WHERE id = $1 AND state IN ('pending', 'complete')",
                           {UUIDOID}),
                  values, nullptr, 1);
    if (SPI_processed == 0) refuse_unknown(id);
}

Payload pending_payload(const pg_uuid_t& id) {
    PreventCommandIfReadOnly("changing a payload");
    PreventCommandIfParallelMode("changing a payload");
    Payload payload{};
    if (!find_payload(id, &payload)) refuse_unknown(id);
    if (!is_owner(payload, GetUserId()))
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("payload %s is an upload of another role", show_payload(id)),
                        errhint("Only its owner changes it, or a member of that role.")));
    if (payload.state != PayloadState::kPending) refuse_state(payload, PayloadState::kPending);
    const Oid table = lock_chunk_table(payload.segment, RowExclusiveLock);
    if (!OidIsValid(table) || !lock_row(id, true) || !find_payload(id, &payload))
        refuse_unknown(id);
    payload.table = table;
    if (payload.state != PayloadState::kPending) refuse_state(payload, PayloadState::kPending);
    if (!payload.has_hash)
        ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
                        errmsg("the state of upload %s is damaged", show_payload(id)),
                        errhint("Upload it again.")));
    return payload;
}

void append_to(Payload& payload, std::string_view content) {
    const std::int64_t bytes = payload.bytes + static_cast<std::int64_t>(content.size());
    require_size(bytes);
    if (payload.expected >= 0 && bytes > payload.expected)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("payload %s was to have %lld bytes and would have %lld",
                               show_payload(payload.id), static_cast<long long>(payload.expected),
                               static_cast<long long>(bytes)),
                        errhint("Give herald.payload_open the right number, or none.")));
    store(payload, content);
    payload.expires_at = expiry();
    update_row(payload, nullptr);
}

void complete(Payload& payload, const std::uint8_t* digest) {
    if (payload.expected >= 0 && payload.bytes != payload.expected)
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("payload %s was to have %lld bytes and has %lld",
                               show_payload(payload.id), static_cast<long long>(payload.expected),
                               static_cast<long long>(payload.bytes)),
                        errhint("It is still pending: write the rest, or herald.payload_abort.")));
    finish(payload, digest);
    update_row(payload, nullptr);
    wish_for_expiry();
}

void abort_payload(Payload& payload) {
    delete_chunks(payload.place());
    payload.state = PayloadState::kError;
    payload.has_hash = false;
    payload.expires_at = GetCurrentTimestamp();  // then the keeper notes what has become free
    update_row(payload, "aborted");
    wish_for_keeper(monotonic_us());
}

Payload readable_payload(const pg_uuid_t& id, pg_uuid_t* message) {
    const Oid role = GetUserId();
    Payload payload{};
    *message = {};
    bool readable = find_payload(id, &payload);
    if (readable) {
        payload.table = lock_chunk_table(payload.segment, AccessShareLock);
        // Again: what holds the table is looked at with the lock.
        readable = OidIsValid(payload.table) && (payload.state == PayloadState::kPending
                                                     ? is_owner(payload, role)
                                                     : payload.state == PayloadState::kComplete &&
                                                           may_read(payload, role, message));
    }
    if (!readable) refuse_unknown(id);
    return payload;
}

Payload complete_payload(const pg_uuid_t& id) {
    Payload payload{};
    bool complete = find_payload(id, &payload);
    if (complete) {
        payload.table = lock_chunk_table(payload.segment, AccessShareLock);
        complete = OidIsValid(payload.table) && payload.state == PayloadState::kComplete;
    }
    if (!complete) refuse_unknown(id);
    return payload;
}

Payload sendable_payload(const pg_uuid_t& id) {
    const Oid role = GetUserId();
    Payload payload{};
    if (!find_payload(id, &payload)) refuse_unknown(id);
    const Oid table = lock_chunk_table(payload.segment, AccessShareLock);
    if (!OidIsValid(table) || !lock_row(id, false) || !find_payload(id, &payload))
        refuse_unknown(id);
    payload.table = table;
    pg_uuid_t message = {};
    if (payload.state == PayloadState::kPending && is_owner(payload, role))
        refuse_state(payload, PayloadState::kComplete);
    if (payload.state != PayloadState::kComplete || !may_read(payload, role, &message))
        refuse_unknown(id);
    return payload;
}

bytea* make_bytea(std::int64_t bytes) {
    if (bytes > static_cast<std::int64_t>(MaxAllocSize) - VARHDRSZ)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("%lld bytes are more than one value can have",
                               static_cast<long long>(bytes)),
                        errhint("Read in parts, by offset and length. An archive that is a table "
                                "cannot have them: archive to a directory.")));
    auto* value = static_cast<bytea*>(palloc(static_cast<Size>(bytes) + VARHDRSZ));
    SET_VARSIZE(value, static_cast<Size>(bytes) + VARHDRSZ);
    return value;
}

bytea* read_content(const Payload& payload, std::int64_t from, std::int64_t to) {
    bytea* result = make_bytea(to - from);
    if (to == from) return result;
    for_each_chunk(payload, from, [&](const ChunkReader& reader, const Chunk& chunk) {
        const std::int64_t first = std::max(from, chunk.start);
        const std::int64_t last = std::min(to, chunk.start + chunk.bytes);
        char* target = VARDATA(result) + (first - from);
        if (last - first == chunk.bytes) {
            reader.decompress_into(chunk, payload.compression, target);
        } else {
            char* whole = static_cast<char*>(palloc(static_cast<Size>(chunk.bytes)));
            reader.decompress_into(chunk, payload.compression, whole);
            std::memcpy(target, whole + (first - chunk.start),
                        static_cast<std::size_t>(last - first));
        }
        return last < to;
    });
    return result;
}

bool is_large(Datum content) {
    const auto bytes = static_cast<std::int64_t>(toast_raw_datum_size(content)) - VARHDRSZ;
    return bytes > std::int64_t{1024} * setting_inline_limit;
}

Datum reference_to(const Payload& payload, Datum message) {
    StringInfoSink sink;
    appendStringInfo(sink.out, "{\"bytes\":%lld,\"checksum\":\"sha256:%s\",\"content_type\":",
                     static_cast<long long>(payload.bytes), digest_text(payload.digest));
    write_json_string(sink, text_view(payload.content_type));
    appendStringInfo(sink.out, ",\"href\":\"/messages/%s\"}",
                     DatumGetCString(DirectFunctionCall1(uuid_out, message)));
    return text_datum(sink.view());
}

Compression require_compression(std::string_view name) {
    const std::optional<Compression> compression = compression_by_name(name);
    if (!compression)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("compression \"%.*s\" is not known",
                               static_cast<int>(Min(name.size(), 80)), name.data()),
                        errhint("It is none, gzip or zstd.")));
    return *compression;
}

void require_content_type(std::string_view type) {
    constexpr std::size_t kMost = 255;
    const auto slash = type.find('/');
    const auto is_plain = [](char c) { return c >= ' ' && c <= '~'; };
    bool good = type.size() <= kMost && slash != std::string_view::npos && slash > 0 &&
                slash + 1 < type.size() && type.front() != ' ' && type.back() != ' ';
    for (const char c : type) good = good && is_plain(c);
    if (good) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("content_type \"%.*s\" is not a media type",
                    pg_mbcliplen(type.data(), static_cast<int>(type.size()), 80), type.data()),
             errhint("It is of the form type/subtype, with parameters or not, in at most 255 "
                     "printable ASCII characters.")));
}

}  // namespace herald
