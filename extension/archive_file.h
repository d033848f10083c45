// Files of an archive: one message a line, in the order of positions, compressed with zstd.
//
// A line is the envelope of the message with further members at its end, for what the envelope
// lacks (workspace, idempotency_key, is_json, …), so that the whole row comes back from it:
//   {"pos":1042,"id":"0198…", … ,"workspace":"w","idempotency_key":"k"}
// Before the lines stands a header in a frame of its own that zstd's tools skip: a JSON object,
// padded with spaces. A file without one (compressed anew by somebody) is read as well.
//
// A file is written to a temporary name in its directory and gets its own only when it is whole and
// on disk. Its name says the positions of its first and its last message.
#pragma once

#include <cstdint>
#include <string_view>

#include "row.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace herald {

// The longest line.
constexpr std::size_t kMaxArchiveLine = MaxAllocSize - 1024;

struct ArchiveFile {
    std::int64_t first;
    std::int64_t last;

    // "0000000000000001-0000000000001042.jsonl.zst", in the current memory context.
    const char* name() const;
};

struct ArchiveFiles {
    ArchiveFile* files;
    int count;
};

// The files of a directory whose last position is above `after`, by their first positions, then by
// their last; in the current memory context.
ArchiveFiles list_archive(const char* directory, std::int64_t after);

// What a header says. Views into memory of the context that it was read in.
struct ArchiveHeader {
    // Which log and which archive of it.
    std::uint64_t system;
    Oid database;
    std::string_view topics;
    // Everything above `after` and up to `upto` that the archive is of is in the file: so many
    // messages.
    std::int64_t after;
    std::int64_t upto;
    std::int64_t messages;
    // The id of the last of them.
    Datum last_id;

    bool same_archive(const ArchiveHeader& other) const {
        return system == other.system && database == other.database && topics == other.topics;
    }
};

// Writes one file. Trivially destructible: what it holds is let go of with the memory context and
// the (sub)transaction that it was opened in.
class ArchiveWriter {
  public:
    void open(const char* directory);
    bool is_open() const { return file_ >= 0; }
    void append(const Row& row);
    // Bytes of the lines so far.
    std::int64_t bytes() const { return bytes_; }
    std::int64_t messages() const { return messages_; }
    ArchiveFile span() const { return span_; }
    // Completes the file, under its temporary name, and brings it to the disk.
    void close(ArchiveHeader header);
    // The temporary name of a directory's next file.
    static const char* temporary_name(const char* directory);

    // A sink: see write_json_string.
    void append(std::string_view text);

  private:
    void put(std::string_view text);
    void compress(bool end);
    void write(const void* data, std::size_t size);

    const char* path_ = nullptr;
    int file_ = -1;
    ZSTD_CCtx_s* zstd_ = nullptr;
    char* in_ = nullptr;
    char* out_ = nullptr;
    std::size_t filled_ = 0;
    std::size_t line_ = 0;
    bool brace_ = false;  // a '}' has come that is not written yet
    std::int64_t bytes_ = 0;
    std::int64_t messages_ = 0;
    ArchiveFile span_ = {};
    pg_uuid_t last_id_ = {};
};

// Reads one file. As the writer.
class ArchiveReader {
  public:
    // False if there is no such file.
    bool open(const char* path);
    // The next message, in the current memory context; false at the end. An error names file and
    // line if the file is damaged.
    bool next(Row* row);
    void close();
    bool has_header() const { return has_header_; }
    const ArchiveHeader& header() const { return header_; }
    [[noreturn]] void refuse(const char* why) const;
    // For error_context_stack.
    static void add_context(void* reader);

  private:
    void read_header();
    bool fill();
    bool decompress();
    bool next_line(std::string_view* line);
    void parse(std::string_view line, Row* row);

    const char* path_ = nullptr;
    int file_ = -1;
    ZSTD_DCtx_s* zstd_ = nullptr;
    char* in_ = nullptr;
    std::size_t in_at_ = 0;
    std::size_t in_size_ = 0;
    char* out_ = nullptr;
    std::size_t out_at_ = 0;
    std::size_t out_size_ = 0;
    bool inside_frame_ = false;
    StringInfoData long_line_ = {};
    MemoryContext home_ = nullptr;
    std::int64_t line_ = 0;
    std::int64_t last_ = 0;
    std::int64_t messages_ = 0;
    bool has_header_ = false;
    ArchiveHeader header_ = {};
};

}  // namespace herald
