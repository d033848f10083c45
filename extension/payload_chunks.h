// Where the contents of payloads lie: chunks (core/chunk.h), in a table per segment of the log,
// herald.payload_<n>: those of payloads that were begun while segment n was written. It is made
// with that segment and dropped when no kept message has a payload in it, so that contents leave
// the disk as messages do. All of them inherit from herald.payload_chunk, which is empty itself.
//
// Whoever uses one keeps its lock until the transaction ends; who is to drop it takes it only if
// nobody has it (payload_life.cpp).
//
// Each chunk has a CRC-32C over its frame and its place.
#pragma once

#include "core/chunk.h"
#include "table_writer.h"

namespace herald {

// The columns of herald.payload_chunk.
enum ChunkColumn : int {
    kChunkPayload,
    kChunkStart,
    kChunkBytes,
    kChunkChecksum,
    kChunkData,
    kChunkColumns
};

// Makes the table of a segment if it is missing; nothing before ALTER EXTENSION UPDATE from 0.1.0.
void make_chunk_table(std::int64_t segment);

// The table of a segment, locked; InvalidOid if there is none (any more).
Oid lock_chunk_table(std::int64_t segment, LOCKMODE mode);

// The table of a segment, for oneself until the transaction ends, if nobody has it just now;
// otherwise InvalidOid. To be dropped, though it is a member of the extension.
Oid try_lock_chunk_table(std::int64_t segment);

// Whose chunks, and in which segment's table.
struct ChunkPlace {
    pg_uuid_t payload;
    std::int64_t segment;
};

// As errors name it.
const char* show_payload(const pg_uuid_t& payload);

// 22023 if a payload of so many bytes does not have this offset.
void require_inside(const pg_uuid_t& payload, std::int64_t bytes, std::int64_t offset);

struct StoredSize {
    std::int64_t bytes = 0;
    std::int64_t chunks = 0;
};

// Cuts contents into chunks and stores them.
class ChunkWriter {
  public:
    // The caller has locked the table.
    ChunkWriter(const ChunkPlace& place, Oid table, Compression compression);
    // The content from `start` on. Gives what it takes stored.
    StoredSize append(std::int64_t start, std::string_view content);
    void close() { table_.close(); }

  private:
    ChunkPlace place_;
    Compression compression_;
    TableWriter table_;
    char* frame_;
};

struct Chunk {
    std::int64_t start;
    int bytes;
    std::string_view frame;
};

// Reads chunks in order, under the active snapshot, each verified; XX001 names what is damaged.
class ChunkReader {
  public:
    // `end`: the bytes of the payload. The caller has locked the table. Lives in the current memory
    // context.
    ChunkReader(const ChunkPlace& place, Oid table, std::int64_t end);
    // To the chunk that `from` falls into.
    void seek(std::int64_t from);
    // The next one, in memory of the current context, which may be reset before the one after it;
    // false after the last.
    bool next(Chunk* chunk);
    void close();

    // The content of a chunk, into room for its bytes.
    void decompress_into(const Chunk& chunk, Compression compression, char* out) const;

  private:
    [[noreturn]] void refuse(std::int64_t start, const char* why) const;

    ChunkPlace place_;
    MemoryContext memory_;  // of the scan: it lives as long as the reader
    std::int64_t end_;
    std::int64_t expected_ = 0;
    Relation table_;
    Relation index_;
    SysScanDesc scan_ = nullptr;
};

// Deletes the chunks of a payload.
void delete_chunks(const ChunkPlace& place);

}  // namespace herald
