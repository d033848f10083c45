// The SQL functions that write and read payloads.

#include <algorithm>
#include <cstring>

#include "check.h"
#include "payload.h"
#include "payload_life.h"
#include "scoped.h"

namespace herald {

namespace {

std::string_view bytea_argument(FunctionCallInfo fcinfo, int argument, const char* name) {
    require_argument(!PG_ARGISNULL(argument), name);
    return text_view(PG_GETARG_DATUM(argument));
}

// NULL: nullptr.
const std::uint8_t* digest_argument(FunctionCallInfo fcinfo, int argument) {
    if (PG_ARGISNULL(argument)) return nullptr;
    const std::string_view digest = text_view(PG_GETARG_DATUM(argument));
    if (digest.size() != RunningDigest::kDigestBytes)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("digest has %zu bytes; a SHA-256 has %zu", digest.size(),
                               RunningDigest::kDigestBytes),
                        errhint("sha256(content)")));
    return reinterpret_cast<const std::uint8_t*>(digest.data());
}

pg_uuid_t payload_argument(FunctionCallInfo fcinfo) {
    require_argument(!PG_ARGISNULL(0), "payload");
    return *PG_GETARG_UUID_P(0);
}

Datum content_type_argument(FunctionCallInfo fcinfo, int argument) {
    require_argument(!PG_ARGISNULL(argument), "content_type");
    return PG_GETARG_DATUM(argument);
}

Compression compression_argument(FunctionCallInfo fcinfo, int argument) {
    require_argument(!PG_ARGISNULL(argument), "compression");
    return require_compression(text_view(PG_GETARG_DATUM(argument)));
}

Datum uuid_result(const pg_uuid_t& id) {
    auto* copy = static_cast<pg_uuid_t*>(palloc(sizeof(pg_uuid_t)));
    *copy = id;
    return UUIDPGetDatum(copy);
}

}  // namespace

HERALD_FUNCTION(herald_put_payload) {
    const std::string_view content = bytea_argument(fcinfo, 0, "content");
    const Payload payload =
        store_payload(content, content_type_argument(fcinfo, 1), compression_argument(fcinfo, 2),
                      digest_argument(fcinfo, 3));
    PG_RETURN_DATUM(uuid_result(payload.id));
}

HERALD_FUNCTION(herald_payload_open) {
    std::int64_t expected = -1;
    if (!PG_ARGISNULL(2)) {
        expected = PG_GETARG_INT64(2);
        require_not_negative(expected, "bytes");
    }
    const Payload payload =
        open_payload(content_type_argument(fcinfo, 0), compression_argument(fcinfo, 1), expected);
    PG_RETURN_DATUM(uuid_result(payload.id));
}

HERALD_FUNCTION(herald_payload_write) {
    const pg_uuid_t id = payload_argument(fcinfo);
    const std::string_view content = bytea_argument(fcinfo, 1, "content");
    Payload payload = pending_payload(id);
    if (!PG_ARGISNULL(2) && PG_GETARG_INT64(2) != payload.bytes)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("offset %lld is not the end of payload %s, which is %lld",
                               static_cast<long long>(PG_GETARG_INT64(2)), show_payload(id),
                               static_cast<long long>(payload.bytes)),
                        errhint("Go on from its end.")));
    append_to(payload, content);
    PG_RETURN_INT64(payload.bytes);
}

HERALD_FUNCTION(herald_payload_close) {
    const pg_uuid_t id = payload_argument(fcinfo);
    const std::uint8_t* wanted = digest_argument(fcinfo, 1);
    Payload payload = pending_payload(id);
    complete(payload, wanted);
    PG_RETURN_DATUM(
        text_datum({reinterpret_cast<const char*>(payload.digest), sizeof payload.digest}));
}

HERALD_FUNCTION(herald_payload_abort) {
    Payload payload = pending_payload(payload_argument(fcinfo));
    abort_payload(payload);
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_payload_read) {
    const pg_uuid_t id = payload_argument(fcinfo);
    require_argument(!PG_ARGISNULL(1), "offset");
    const std::int64_t from = PG_GETARG_INT64(1);
    require_not_negative(from, "offset");
    if (!PG_ARGISNULL(2)) require_not_negative(PG_GETARG_INT64(2), "length");
    pg_uuid_t message;
    const Payload payload = readable_payload(id, &message);
    require_inside(payload.id, payload.bytes, from);
    const std::int64_t rest = payload.bytes - from;
    const std::int64_t length = PG_ARGISNULL(2) ? rest : std::min(PG_GETARG_INT64(2), rest);
    bytea* result = read_content(payload, from, from + length);
    note_access(payload, message, from, from + length);
    PG_RETURN_BYTEA_P(result);
}

HERALD_FUNCTION(herald_payload_stored) {
    const pg_uuid_t id = payload_argument(fcinfo);
    require_argument(!PG_ARGISNULL(1), "from");
    require_argument(!PG_ARGISNULL(2), "max_bytes");
    const std::int64_t from = PG_GETARG_INT64(1);
    const int most = PG_GETARG_INT32(2);
    require_not_negative(from, "from");
    if (most < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("max_bytes is %d; it must be at least 1", most),
                        errhint("At least one chunk is given in any case.")));
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    pg_uuid_t message;
    const Payload payload = readable_payload(id, &message);
    require_inside(payload.id, payload.bytes, from);
    std::int64_t upto = from;
    std::int64_t given = 0;
    for_each_chunk(payload, from, [&](const ChunkReader&, const Chunk& chunk) {
        Datum values[] = {Int64GetDatum(chunk.start), Int32GetDatum(chunk.bytes),
                          text_datum(chunk.frame)};
        bool nulls[lengthof(values)] = {};
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
        upto = chunk.start + chunk.bytes;
        given += static_cast<std::int64_t>(chunk.frame.size());
        return given < most;
    });
    note_access(payload, message, from, upto);
    return 0;
}

}  // namespace herald
