// Payloads (the claim check): contents too large for the log. A row of herald.payload each, the
// content in chunks (payload_chunks.h); the message has the payload's id, and as its content the
// JSON that its envelope has as "ref".
//
//            write        close                    in no message, too late
//   open ──▶ pending ──▶ complete ─────────────────▶ expired
//               │  too late ▶ expired   │ in a message: expires_at becomes NULL,
//               └─ abort ▶ error        └ and it goes with the messages' segments
//
// Rights: an upload is its owner's. What is complete may be read and sent by whoever may call the
// functions, if it is in a readable message; its owner may before that.
//
// Locks: a chunk table first (payload_chunks.h), then the row: writers FOR NO KEY UPDATE, senders
// FOR KEY SHARE, so that they don't wait for each other, and the keeper FOR UPDATE SKIP LOCKED.
#pragma once

#include "core/digest.h"
#include "payload_chunks.h"
#include "row.h"
#include "scoped.h"

namespace herald {

enum class PayloadState { kPending, kComplete, kError, kExpired };

struct Payload {
    pg_uuid_t id;
    std::int64_t segment;
    PayloadState state;
    Compression compression;
    std::int64_t bytes;
    std::int64_t stored_bytes;
    std::int64_t chunks;
    std::int64_t expected;  // as payload_open was told; < 0: it was not
    Datum content_type;     // text
    NameData owner;
    TimestampTz completed_at;  // 0: not
    TimestampTz expires_at;    // 0: not by itself
    TimestampTz accessed_at;   // 0: not since it is complete
    bool has_digest;
    std::uint8_t digest[RunningDigest::kDigestBytes];
    bool has_hash;  // only while it is pending
    RunningDigest hash;
    Oid table;  // that of its chunks; locked

    ChunkPlace place() const { return {id, segment}; }
};

// A digest in hexadecimal, in the current memory context.
const char* digest_text(const std::uint8_t* digest);

// A complete payload whose content this is, of the current user.
Payload store_payload(std::string_view content, Datum content_type, Compression compression,
                      const std::uint8_t* digest);

// A new pending one. `expected`: its bytes, < 0: not known.
Payload open_payload(Datum content_type, Compression compression, std::int64_t expected);

// A pending one of the current user, locked until the transaction ends. P0002, 42501, 55000.
Payload pending_payload(const pg_uuid_t& id);

// Adds to a pending one what pending_payload gave. 54000 if it becomes too large.
void append_to(Payload& payload, std::string_view content);
// Its content is whole. 22000 if it has not the bytes that it was to have, or not this digest.
void complete(Payload& payload, const std::uint8_t* digest);
void abort_payload(Payload& payload);

// One that the current user may read now. P0002 if there is none; `message` is one that it is in,
// zero if it is in none.
Payload readable_payload(const pg_uuid_t& id, pg_uuid_t* message);

// A complete one, for what the extension itself does with it. P0002 if there is none.
Payload complete_payload(const pg_uuid_t& id);

// P0002 unless, under the active snapshot, its chunks are there: they may have been deleted since
// its row was read under another one.
void require_chunks_kept(const pg_uuid_t& id);

// Calls `work(reader, chunk)` for the chunks from the one with byte `from`, in memory that is empty
// before each, until it gives false.
template <typename Work>
void for_each_chunk(const Payload& payload, std::int64_t from, Work&& work) {
    with_fresh_spi([&] {
        require_chunks_kept(payload.id);
        ChunkReader reader(payload.place(), payload.table, payload.bytes);
        reader.seek(from);
        MemoryContext memory =
            AllocSetContextCreate(CurrentMemoryContext, "herald chunk", ALLOCSET_DEFAULT_SIZES);
        for (bool more = true; more;) {
            CHECK_FOR_INTERRUPTS();
            MemoryContextReset(memory);
            MemoryContext caller = MemoryContextSwitchTo(memory);
            Chunk chunk;
            more = reader.next(&chunk) && work(reader, chunk);
            MemoryContextSwitchTo(caller);
        }
        MemoryContextDelete(memory);
        reader.close();
    });
}

// A value for so many bytes, to be filled in. 54000 if they are more than one can have.
bytea* make_bytea(std::int64_t bytes);

// Bytes [from, to) of its content, which it has. 54000 if they are more than a value can have.
bytea* read_content(const Payload& payload, std::int64_t from, std::int64_t to);

// A complete one that the current user may send, held until the transaction ends. P0002, 55000.
Payload sendable_payload(const pg_uuid_t& id);

// Whether a content is so large that it becomes a payload by itself (herald.inline_limit).
bool is_large(Datum content);

// The content of a message with this payload: {"bytes":…,"checksum":…,"content_type":…,"href":…}
Datum reference_to(const Payload& payload, Datum message);

// 22023
Compression require_compression(std::string_view name);
void require_content_type(std::string_view type);

}  // namespace herald
