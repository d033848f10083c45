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

void require_not_negative(std::int64_t value, const char* name) {
    if (value >= 0) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("%s is %lld; it must not be negative", name, static_cast<long long>(value)),
             errhint("Give a number of bytes.")));
}

void require_inside(const Payload& payload, std::int64_t offset) {
    if (offset <= payload.bytes) return;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("offset %lld is beyond the end of payload %s, which has %lld bytes",
                           static_cast<long long>(offset), show_payload(payload.id),
                           static_cast<long long>(payload.bytes)),
                    errhint("herald.payloads shows how many bytes there are.")));
}

// Runs `work(reader)` on the chunks from the one with byte `from`.
template <typename Work>
void with_chunks(const Payload& payload, std::int64_t from, Work&& work) {
    with_fresh_spi([&] {
        ChunkReader reader(payload.place(), payload.table, payload.bytes);
        reader.seek(from);
        work(reader);
        reader.close();
    });
}

// Runs `work()` in memory that is empty before each call.
class Scratch {
  public:
    Scratch()
        : memory_(AllocSetContextCreate(CurrentMemoryContext, "herald chunk",
                                        ALLOCSET_DEFAULT_SIZES)) {}

    template <typename Work>
    bool run(Work&& work) {
        MemoryContextReset(memory_);
        MemoryContext caller = MemoryContextSwitchTo(memory_);
        const bool more = work();
        MemoryContextSwitchTo(caller);
        return more;
    }
    void close() { MemoryContextDelete(memory_); }

  private:
    MemoryContext memory_;
};

// Writes bytes [from, to) of the content.
void read_range(const Payload& payload, std::int64_t from, std::int64_t to, char* out) {
    with_chunks(payload, from, [&](ChunkReader& reader) {
        Scratch scratch;
        const auto copy_next = [&] {
            CHECK_FOR_INTERRUPTS();
            Chunk chunk;
            if (!reader.next(&chunk)) return false;
            const std::int64_t first = std::max(from, chunk.start);
            const std::int64_t last = std::min(to, chunk.start + chunk.bytes);
            char* target = out + (first - from);
            if (last - first == chunk.bytes) {
                reader.decompress_into(chunk, payload.compression, target);
            } else {
                char* whole = static_cast<char*>(palloc(static_cast<Size>(chunk.bytes)));
                reader.decompress_into(chunk, payload.compression, whole);
                std::memcpy(target, whole + (first - chunk.start),
                            static_cast<std::size_t>(last - first));
            }
            return last < to;
        };
        while (from < to && scratch.run(copy_next)) {
        }
        scratch.close();
    });
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
    require_inside(payload, from);
    const std::int64_t rest = payload.bytes - from;
    const std::int64_t length = PG_ARGISNULL(2) ? rest : std::min(PG_GETARG_INT64(2), rest);
    constexpr auto kMost = static_cast<std::int64_t>(MaxAllocSize) - VARHDRSZ;
    if (length > kMost)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("%lld bytes are more than one value can have",
                               static_cast<long long>(length)),
                        errhint("Read in parts: herald.payload_read(payload, offset, length).")));
    auto* result = static_cast<bytea*>(palloc(static_cast<Size>(length) + VARHDRSZ));
    SET_VARSIZE(result, static_cast<Size>(length) + VARHDRSZ);
    read_range(payload, from, from + length, VARDATA(result));
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
    require_inside(payload, from);
    std::int64_t upto = from;
    with_chunks(payload, from, [&](ChunkReader& reader) {
        Scratch scratch;
        std::int64_t given = 0;
        while (scratch.run([&] {
            CHECK_FOR_INTERRUPTS();
            Chunk chunk;
            if (!reader.next(&chunk)) return false;
            Datum values[] = {Int64GetDatum(chunk.start), Int32GetDatum(chunk.bytes),
                              text_datum(chunk.frame)};
            bool nulls[lengthof(values)] = {};
            tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
            upto = chunk.start + chunk.bytes;
            given += static_cast<std::int64_t>(chunk.frame.size());
            return given < most;
        })) {
        }
        scratch.close();
    });
    note_access(payload, message, from, upto);
    return 0;
}

}  // namespace herald
