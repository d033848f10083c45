#include "payload_chunks.h"

#include <malloc.h>

#include <cstring>

#include "compat.h"
#include "log.h"
#include "row.h"
#include "scoped.h"

namespace herald {

namespace {

struct TableName {
    char text[NAMEDATALEN];
};

TableName table_name(std::int64_t segment) {
    TableName name;
    snprintf(name.text, sizeof name.text, "payload_%lld", static_cast<long long>(segment));
    return name;
}

Oid find_table(std::int64_t segment) {
    return get_relname_relid(table_name(segment).text, log_schema());
}

// Over the frame and where it belongs, in an order of bytes that does not depend on the machine.
pg_crc32c checksum_of(const pg_uuid_t& payload, const Chunk& chunk) {
    unsigned char place[12];
    for (unsigned i = 0; i < 8; ++i)
        place[i] = static_cast<unsigned char>(static_cast<std::uint64_t>(chunk.start) >> (8U * i));
    for (unsigned i = 0; i < 4; ++i)
        place[8 + i] =
            static_cast<unsigned char>(static_cast<std::uint32_t>(chunk.bytes) >> (8U * i));
    pg_crc32c crc;
    INIT_CRC32C(crc);
    COMP_CRC32C(crc, payload.data, UUID_LEN);
    COMP_CRC32C(crc, place, sizeof place);
    COMP_CRC32C(crc, chunk.frame.data(), chunk.frame.size());
    FIN_CRC32C(crc);
    return crc;
}

// Each piece of a payload passes through some buffers of up to a megabyte. As it is set up, malloc
// fetches each from the kernel and gives it back: page faults took two thirds of the time of a
// read. From a backend's first chunk on it keeps up to 8 MiB of what is free.
void keep_freed_memory() {
    static constinit bool done = false;
    if (done) return;
    done = true;
    (void)mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
}

}  // namespace

void make_chunk_table(std::int64_t segment) {
    if (!OidIsValid(get_relname_relid("payload_chunk", log_schema()))) return;
    // Of several who find it missing one makes it.
    LockRelationOid(log_table(), ShareUpdateExclusiveLock);
    if (OidIsValid(find_table(segment))) return;
    const TableName name = table_name(segment);
    with_owner_spi([&] {
        run_statement(psprintf("CREATE TABLE herald.%s (PRIMARY KEY (payload, start))"
                               " INHERITS (herald.payload_chunk)",
                               name.text),
                      SPI_OK_UTILITY);
        // Statistics would be samples of the contents.
        run_statement(psprintf("ALTER TABLE herald.%s ALTER data SET STATISTICS 0", name.text),
                      SPI_OK_UTILITY);
        run_statement(psprintf("COMMENT ON TABLE herald.%s IS 'Chunks of payloads, of one segment'",
                               name.text),
                      SPI_OK_UTILITY);
    });
    add_table_to_extension(find_table(segment), get_extension_oid("pg_herald", false));
    CommandCounterIncrement();
}

Oid lock_chunk_table(std::int64_t segment, LOCKMODE mode) {
    const Oid table = find_table(segment);
    if (!OidIsValid(table)) return InvalidOid;
    LockRelationOid(table, mode);
    // It may have been dropped meanwhile.
    return find_table(segment) == table ? table : InvalidOid;
}

Oid try_lock_chunk_table(std::int64_t segment) {
    const Oid table = find_table(segment);
    if (!OidIsValid(table) || !ConditionalLockRelationOid(table, AccessExclusiveLock) ||
        find_table(segment) != table)
        return InvalidOid;
    Relation relation = table_open(table, NoLock);
    const Oid toast = relation->rd_rel->reltoastrelid;
    table_close(relation, NoLock);
    return ConditionalLockRelationOid(toast, AccessExclusiveLock) ? table : InvalidOid;
}

const char* show_payload(const pg_uuid_t& payload) {
    return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&payload)));
}

void require_inside(const pg_uuid_t& payload, std::int64_t bytes, std::int64_t offset) {
    if (offset <= bytes) return;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("offset %lld is beyond the end of payload %s, which has %lld bytes",
                           static_cast<long long>(offset), show_payload(payload),
                           static_cast<long long>(bytes)),
                    errhint("It must be at most the number of its bytes.")));
}

ChunkWriter::ChunkWriter(const ChunkPlace& place, Oid table, Compression compression)
    : place_(place),
      compression_(compression),
      frame_(static_cast<char*>(palloc(VARHDRSZ + compress_bound(compression, kMaxChunk)))) {
    keep_freed_memory();
    table_.open(table, NoLock);
}

StoredSize ChunkWriter::append(std::int64_t start, std::string_view content) {
    StoredSize stored;
    for (std::size_t at = 0; at < content.size(); at += kMaxChunk) {
        CHECK_FOR_INTERRUPTS();
        const std::string_view piece = content.substr(at, kMaxChunk);
        const std::size_t length =
            compress(compression_, piece, VARDATA(frame_), compress_bound(compression_, kMaxChunk));
        if (length == 0)
            ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
                            errdetail("A chunk of a payload could not be compressed.")));
        SET_VARSIZE(frame_, VARHDRSZ + length);
        const Chunk chunk = {start + static_cast<std::int64_t>(at),
                             static_cast<int>(piece.size()),
                             {VARDATA(frame_), length}};
        const Datum values[kChunkColumns] = {
            UUIDPGetDatum(&place_.payload), Int64GetDatum(chunk.start), Int32GetDatum(chunk.bytes),
            Int64GetDatum(checksum_of(place_.payload, chunk)), PointerGetDatum(frame_)};
        const bool nulls[kChunkColumns] = {};
        table_.append(values, nulls);
        stored.bytes += static_cast<std::int64_t>(length);
        ++stored.chunks;
    }
    return stored;
}

ChunkReader::ChunkReader(const ChunkPlace& place, Oid table, std::int64_t end)
    : place_(place), memory_(CurrentMemoryContext), end_(end), table_(table_open(table, NoLock)) {
    keep_freed_memory();
    List* indexes = RelationGetIndexList(table_);
    if (indexes == NIL) elog(ERROR, "herald: %s has no index", RelationGetRelationName(table_));
    index_ = index_open(linitial_oid(indexes), AccessShareLock);
}

void ChunkReader::seek(std::int64_t from) {
    if (scan_ != nullptr) systable_endscan_ordered(scan_);
    scan_ = nullptr;
    expected_ = from;
    if (from >= end_) return;
    ScanKeyData keys[2];
    ScanKeyInit(&keys[0], kChunkPayload + 1, BTEqualStrategyNumber, F_UUID_EQ,
                UUIDPGetDatum(&place_.payload));
    ScanKeyInit(&keys[1], kChunkStart + 1, BTLessEqualStrategyNumber, F_INT8LE,
                Int64GetDatum(from));
    scan_ = systable_beginscan_ordered(table_, index_, GetActiveSnapshot(), 2, keys);
    HeapTuple tuple = systable_getnext_ordered(scan_, BackwardScanDirection);
    bool null = false;
    if (HeapTupleIsValid(tuple))
        expected_ =
            DatumGetInt64(heap_getattr(tuple, kChunkStart + 1, RelationGetDescr(table_), &null));
    systable_endscan_ordered(scan_);
    ScanKeyInit(&keys[1], kChunkStart + 1, BTGreaterEqualStrategyNumber, F_INT8GE,
                Int64GetDatum(expected_));
    scan_ = systable_beginscan_ordered(table_, index_, GetActiveSnapshot(), 2, keys);
}

void ChunkReader::refuse(std::int64_t start, const char* why) const {
    ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
                    errmsg("the chunk at byte %lld of payload %s in herald.payload_%lld %s",
                           static_cast<long long>(start), show_payload(place_.payload),
                           static_cast<long long>(place_.segment), why),
                    errhint("Its bytes on disk have changed: restore them from a backup.")));
    pg_unreachable();
}

bool ChunkReader::next(Chunk* chunk) {
    if (expected_ >= end_) return false;
    struct Shown {
        const ChunkReader* reader;
        std::int64_t start;
    } shown = {this, expected_};
    // For errors of PostgreSQL itself: a value that it cannot put together.
    ErrorContextCallback context;
    context.previous = error_context_stack;
    context.callback = [](void* argument) {
        const auto* what = static_cast<const Shown*>(argument);
        errcontext("chunk at byte %lld of payload %s in herald.payload_%lld",
                   static_cast<long long>(what->start), show_payload(what->reader->place_.payload),
                   static_cast<long long>(what->reader->place_.segment));
    };
    context.arg = &shown;
    error_context_stack = &context;
    MemoryContext caller = MemoryContextSwitchTo(memory_);
    HeapTuple tuple = systable_getnext_ordered(scan_, ForwardScanDirection);
    MemoryContextSwitchTo(caller);
    if (!HeapTupleIsValid(tuple)) refuse(expected_, "is missing");
    const auto column = [&](int number) {
        bool null = false;
        const Datum value = heap_getattr(tuple, number + 1, RelationGetDescr(table_), &null);
        if (null) refuse(expected_, "is damaged");
        return value;
    };
    chunk->start = DatumGetInt64(column(kChunkStart));
    if (chunk->start != expected_) refuse(expected_, "is missing");
    chunk->bytes = DatumGetInt32(column(kChunkBytes));
    const auto limit = Min(static_cast<std::int64_t>(kMaxChunk), end_ - expected_);
    if (chunk->bytes < 1 || chunk->bytes > limit) refuse(expected_, "is damaged");
    chunk->frame = text_view(column(kChunkData));
    if (checksum_of(place_.payload, *chunk) !=
        static_cast<pg_crc32c>(DatumGetInt64(column(kChunkChecksum))))
        refuse(expected_, "is damaged");
    error_context_stack = context.previous;
    expected_ += chunk->bytes;
    return true;
}

void ChunkReader::close() {
    if (scan_ != nullptr) systable_endscan_ordered(scan_);
    index_close(index_, NoLock);
    table_close(table_, NoLock);
}

void ChunkReader::decompress_into(const Chunk& chunk, Compression compression, char* out) const {
    if (!decompress(compression, chunk.frame, out, static_cast<std::size_t>(chunk.bytes)))
        refuse(chunk.start, "is damaged");
}

void delete_chunks(const ChunkPlace& place) {
    with_fresh_spi([&] {
        SPIPlanPtr plan = nullptr;
        Oid types[] = {UUIDOID};
        plan = SPI_prepare(
            psprintf("DELETE FROM herald.%s WHERE payload = $1", table_name(place.segment).text), 1,
            types);
        if (plan == nullptr) elog(ERROR, "herald: cannot prepare the removal of chunks");
        Datum values[] = {UUIDPGetDatum(&place.payload)};
        run_fresh(plan, values, nullptr, SPI_OK_DELETE);
    });
}

}  // namespace herald
