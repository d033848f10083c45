// Payloads: what Database asks of herald.put_payload, payload_open and their kin. Each call is a
// transaction. Those of an upload before its end are committed without waiting for the disk: the
// end waits for all of them, because the server's log is written in order.

#include "database_payloads.h"

#include <utility>

#include "database.h"
#include "http_fields.h"

namespace herald {
namespace {

constexpr PgStatement kRead{"herald_payload_read",
                            "SELECT herald.payload_read($1::text::uuid, $2::bigint, $3::bigint)"};
constexpr PgStatement kReadStored{
    "herald_payload_stored",
    "SELECT start::bigint, bytes::bigint, data"
    " FROM herald.payload_stored($1::text::uuid, $2::bigint, $3::int)"};
constexpr PgStatement kPut{
    "herald_put_payload",
    "SELECT herald.put_payload($1::bytea, $2::text, coalesce($3::text, 'zstd'), $4::bytea)::text,"
    " coalesce($4::bytea, sha256($1::bytea))"};
constexpr PgStatement kOpen{
    "herald_payload_open",
    "SELECT herald.payload_open($1::text, coalesce($2::text, 'zstd'), $3::bigint)::text"};
constexpr PgStatement kWrite{"herald_payload_write",
                             "SELECT herald.payload_write($1::text::uuid, $3::bytea, $2::bigint)"};
constexpr PgStatement kClose{"herald_payload_close",
                             "SELECT herald.payload_close($1::text::uuid, $2::bytea)"};
constexpr PgStatement kAbort{"herald_payload_abort",
                             "SELECT herald.payload_abort($1::text::uuid)::text"};
constexpr PgStatement kState{"herald_upload_state",
                             "SELECT state, bytes, expected_bytes, checksum FROM herald.payloads"
                             " WHERE id = $1::text::uuid"};
constexpr PgStatement kDontWait{"herald_dont_wait",
                                "SELECT set_config('synchronous_commit', 'off', true)"};

constexpr PgStatement kStatements[] = {kRead,  kReadStored, kPut,   kOpen,    kWrite,
                                       kClose, kAbort,      kState, kDontWait};

// "sha256:…" as 32 bytes; empty if it is nothing of that kind.
std::string sha256_of(std::string_view checksum) {
    constexpr std::string_view kPrefix = "sha256:";
    if (!checksum.starts_with(kPrefix)) return {};
    return bytes_of_hex(checksum.substr(kPrefix.size())).value_or("");
}

PgParameters& add_or_null(PgParameters& parameters, std::string value) {
    return value.empty() ? parameters.null() : parameters.bytes(std::move(value));
}

PgParameters& add_or_null(PgParameters& parameters, std::optional<std::uint64_t> value) {
    return value ? parameters.int8(static_cast<std::int64_t>(*value)) : parameters.null();
}

// `done` for errors: those that a caller must tell from others get codes of their own.
template <typename Done>
std::function<void(Error)> failing(Done done, const char* sqlstate = "", const char* code = "") {
    return [done = std::move(done), sqlstate, code](Error why) {
        if (why.sqlstate == sqlstate && !why.sqlstate.empty()) why.code = code;
        if (why.sqlstate == "54000") why.code = "limit";
        if (why.sqlstate == "P0002") why.code = "not_found";
        done(std::move(why));
    };
}

}  // namespace

std::span<const PgStatement> payload_statements() {
    return kStatements;
}

std::optional<Payload> payload_of(const PgRows& rows, int row, int column) {
    if (rows.is_null(row, column + 1)) return std::nullopt;
    Payload payload{
        .id = std::string(rows.text(row, column)),
        .bytes = static_cast<std::uint64_t>(rows.int8(row, column + 1)),
        .sha256 = sha256_of(rows.text(row, column + 2)),
        .content_type = std::string(rows.text(row, column + 3)),
        .compression = std::string(rows.text(row, column + 4)),
        .stored_bytes = static_cast<std::uint64_t>(rows.int8(row, column + 5)),
        .chunks = static_cast<std::uint64_t>(rows.int8(row, column + 6)),
    };
    if (payload.sha256.empty()) return std::nullopt;
    return payload;
}

void Database::read_payload(std::string id, std::uint64_t offset, std::uint64_t length,
                            std::function<void(Result<Bytes>)> done) {
    Request work;
    work.repeatable = true;
    work.calls.push_back({kRead.name, PgParameters()
                                          .text(id)
                                          .int8(static_cast<std::int64_t>(offset))
                                          .int8(static_cast<std::int64_t>(length))});
    work.fail = failing(done);
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        done(Bytes{.view = results[0].text(0, 0), .owner = results[0].owner()});
    };
    submit(std::move(work));
}

void Database::read_stored(std::string id, std::uint64_t from, int max_bytes,
                           std::function<void(Result<std::vector<StoredChunk>>)> done) {
    Request work;
    work.repeatable = true;
    work.calls.push_back(
        {kReadStored.name,
         PgParameters().text(id).int8(static_cast<std::int64_t>(from)).int4(max_bytes)});
    work.fail = failing(done);
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        const PgRows& rows = results[0];
        std::vector<StoredChunk> chunks;
        chunks.reserve(static_cast<std::size_t>(rows.size()));
        for (int row = 0; row < rows.size(); ++row)
            chunks.push_back({.start = static_cast<std::uint64_t>(rows.int8(row, 0)),
                              .bytes = static_cast<std::uint64_t>(rows.int8(row, 1)),
                              .stored = {.view = rows.text(row, 2), .owner = rows.owner()}});
        done(std::move(chunks));
    };
    submit(std::move(work));
}

void Database::put_payload(NewPayload what, std::string content, std::string sha256,
                           std::function<void(Result<PutPayload>)> done) {
    Request work;
    PgParameters parameters;
    parameters.bytes(std::move(content)).text(what.content_type);
    add_or_null(add_or_null(parameters, std::move(what.compression)), std::move(sha256));
    work.calls.push_back({kPut.name, std::move(parameters)});
    work.fail = failing(done, "22000", "digest");
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        done(PutPayload{.id = std::string(results[0].text(0, 0)),
                        .sha256 = std::string(results[0].text(0, 1))});
    };
    submit(std::move(work));
}

void Database::open_payload(NewPayload what, std::function<void(Result<std::string>)> done) {
    Request work;
    PgParameters parameters;
    parameters.text(what.content_type);
    add_or_null(add_or_null(parameters, std::move(what.compression)), what.bytes);
    work.calls.push_back({kDontWait.name, {}});
    work.calls.push_back({kOpen.name, std::move(parameters)});
    work.fail = failing(done);
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        done(std::string(results[1].text(0, 0)));
    };
    submit(std::move(work));
}

void Database::write_payload(std::string id, std::uint64_t offset, std::string content,
                             std::function<void(Result<std::uint64_t>)> done) {
    Request work;
    PgParameters parameters;
    parameters.text(id).int8(static_cast<std::int64_t>(offset)).bytes(std::move(content));
    work.calls.push_back({kDontWait.name, {}});
    work.calls.push_back({kWrite.name, std::move(parameters)});
    work.fail = failing(done, "22023", "offset");
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        done(static_cast<std::uint64_t>(results[1].int8(0, 0)));
    };
    submit(std::move(work));
}

void Database::close_payload(std::string id, std::string sha256,
                             std::function<void(Result<std::string>)> done) {
    Request work;
    PgParameters parameters;
    parameters.text(id);
    add_or_null(parameters, std::move(sha256));
    work.calls.push_back({kClose.name, std::move(parameters)});
    work.fail = failing(done, "22000", "digest");
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        done(std::string(results[0].text(0, 0)));
    };
    submit(std::move(work));
}

void Database::abort_payload(std::string id, std::function<void(Result<std::monostate>)> done) {
    Request work;
    work.calls.push_back({kAbort.name, PgParameters().text(id)});
    work.fail = failing(done);
    work.finish = [done = std::move(done)](std::span<const PgRows>) { done(std::monostate()); };
    submit(std::move(work));
}

void Database::upload_state(std::string id,
                            std::function<void(Result<std::optional<UploadState>>)> done) {
    Request work;
    work.repeatable = true;
    work.calls.push_back({kState.name, PgParameters().text(id)});
    work.fail = failing(done);
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        const PgRows& rows = results[0];
        if (rows.size() == 0) {
            done(std::optional<UploadState>());
            return;
        }
        UploadState state;
        if (rows.text(0, 0) == "complete") {
            state.kind = UploadState::Kind::kComplete;
        } else if (rows.text(0, 0) != "pending") {
            state.kind = UploadState::Kind::kGone;
        }
        state.bytes = static_cast<std::uint64_t>(rows.int8(0, 1));
        if (!rows.is_null(0, 2)) state.length = static_cast<std::uint64_t>(rows.int8(0, 2));
        state.sha256 = sha256_of(rows.text(0, 3));
        done(std::optional<UploadState>(std::move(state)));
    };
    submit(std::move(work));
}

}  // namespace herald
