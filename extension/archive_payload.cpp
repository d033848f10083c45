#include "archive_payload.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "archive_io.h"
#include "core/archive_line.h"
#include "payload.h"

namespace herald {

namespace {

constexpr std::size_t kHeaderSize = 256;
constexpr std::size_t kBuffer = 128 * 1024;
constexpr std::string_view kSha256 = "sha256:";
// Of a frame that we have written: a chunk. Of one that somebody has compressed anew: zstd's usual
// limit.
constexpr int kMostWindowLog = 27;

const char* folder_in(const char* directory) {
    return psprintf("%s/payloads", directory);
}
const char* path_in(const char* directory, const pg_uuid_t& id) {
    return psprintf("%s/%s.zst", folder_in(directory), show_payload(id));
}
const char* temporary_name(const char* directory) {
    return psprintf("%s/.pg_herald.tmp", folder_in(directory));
}

// A link in its place is not followed.
void make_folder(const char* directory) {
    const char* folder = folder_in(directory);
    if (MakePGDirectory(folder) == 0) {
        fsync_fname(directory, true);
        return;
    }
    if (errno != EEXIST) refuse_file(folder, "create");
    struct stat found;
    if (lstat(folder, &found) != 0) refuse_file(folder, "access");
    if (!S_ISDIR(found.st_mode))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("\"%s\" is no directory", folder), errhint("Move it away.")));
}

// The chunk as a frame of zstd, in the current memory context.
std::string_view zstd_frame(const ChunkReader& reader, const Chunk& chunk, Compression stored) {
    if (stored == Compression::kZstd) return chunk.frame;
    const auto bytes = static_cast<std::size_t>(chunk.bytes);
    char* content = static_cast<char*>(palloc(bytes));
    reader.decompress_into(chunk, stored, content);
    const std::size_t room = compress_bound(Compression::kZstd, bytes);
    char* frame = static_cast<char*>(palloc(room));
    const std::size_t size = compress(Compression::kZstd, {content, bytes}, frame, room);
    if (size == 0) refuse_archive_memory();
    return {frame, size};
}

[[noreturn]] void refuse_damaged(const char* path, const char* why) {
    ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
                    errmsg("archived payload \"%s\" is damaged: %s", path, why),
                    errhint("Restore it from a backup.")));
    pg_unreachable();
}

// Reads a file from its beginning to its end.
class ContentReader {
  public:
    explicit ContentReader(const char* path) : path_(path) {}

    // False if there is none.
    bool open() {
        file_ = OpenTransientFile(path_, O_RDONLY | PG_BINARY);
        if (file_ < 0 && errno == ENOENT) return false;
        if (file_ < 0) refuse_file(path_, "open");
        zstd_ = make_decompressor(kMostWindowLog);
        in_ = static_cast<char*>(palloc(kBuffer));
        out_ = static_cast<char*>(palloc(kBuffer));
        read_header();
        return true;
    }
    std::int64_t bytes() const { return bytes_; }

    // The next part; empty at the end, if it is where the header says, and the digest is the same.
    std::string_view next() {
        ZSTD_outBuffer out = {out_, kBuffer, 0};
        // A little input can be much output: there may be more of it when all input has been taken.
        for (bool more = true; more && out.pos == 0;) {
            CHECK_FOR_INTERRUPTS();
            const std::size_t left = ZSTD_decompressStream(zstd_, &out, &input_);
            if (ZSTD_isError(left) != 0) refuse_damaged(path_, ZSTD_getErrorName(left));
            more = out.pos > 0 || input_.pos < input_.size || fill();
        }
        given_ += static_cast<std::int64_t>(out.pos);
        hash_.add({out_, out.pos});
        if (given_ > bytes_ || (out.pos == 0 && given_ != bytes_))
            refuse_damaged(path_, "it has another length than its header says");
        if (out.pos == 0 && digest_ != digest_text(hash_.digest().data()))
            refuse_damaged(path_, "its digest is not the one that its header says");
        return {out_, out.pos};
    }
    void close() { (void)CloseTransientFile(file_); }

  private:
    bool fill() {
        input_ = {in_, read_file(file_, path_, in_, kBuffer), 0};
        return input_.size > 0;
    }

    void read_header() {
        const std::string_view text = fill() ? header_text(in_, input_.size, kHeaderSize) : "";
        JsonMembers members(text);
        bool version = false;
        while (members.next()) {
            const std::string_view value = members.value();
            if (members.name() == "pg_herald_payload") version = value == "1";
            if (members.name() == "bytes") bytes_ = read_integer(value).value_or(-1);
            if (members.name() == "checksum" && value.size() > kSha256.size() + 2 &&
                value.substr(1, kSha256.size()) == kSha256)
                digest_ = value.substr(1 + kSha256.size(), value.size() - kSha256.size() - 2);
        }
        if (!members.complete() || !version || bytes_ < 0 ||
            digest_.size() != 2 * RunningDigest::kDigestBytes)
            refuse_damaged(path_, "its header is not of this version");
        digest_ = text_view(text_datum(digest_));  // the buffer changes
        input_.pos = kHeaderSize;
    }

    const char* path_;
    int file_ = -1;
    ZSTD_DCtx* zstd_ = nullptr;
    char* in_ = nullptr;
    char* out_ = nullptr;
    ZSTD_inBuffer input_ = {nullptr, 0, 0};
    std::int64_t bytes_ = -1;
    std::int64_t given_ = 0;
    std::string_view digest_;
    RunningDigest hash_ = RunningDigest::begin();
};

}  // namespace

std::int64_t archive_payload(const char* directory, const pg_uuid_t& id) {
    const char* path = path_in(directory, id);
    struct stat found;
    if (stat(path, &found) == 0) return 0;
    if (errno != ENOENT) refuse_file(path, "access");
    make_folder(directory);
    const Payload payload = complete_payload(id);
    char header[kHeaderSize];
    if (!make_header_frame(
            header, kHeaderSize,
            psprintf("{\"pg_herald_payload\":1,\"bytes\":%lld,\"checksum\":\"sha256:%s\"}",
                     static_cast<long long>(payload.bytes), digest_text(payload.digest))))
        elog(ERROR, "herald: the header of an archived payload is too long");
    const char* fresh = temporary_name(directory);
    const int file = create_file(fresh);
    write_file(file, fresh, header, kHeaderSize);
    for_each_chunk(payload, 0, [&](const ChunkReader& reader, const Chunk& chunk) {
        const std::string_view frame = zstd_frame(reader, chunk, payload.compression);
        write_file(file, fresh, frame.data(), frame.size());
        return true;
    });
    finish_file(file, fresh);
    (void)durable_rename(fresh, path, ERROR);
    return payload.bytes;
}

void discard_unfinished_payload(const char* directory) {
    (void)unlink(temporary_name(directory));
}

bytea* read_archived_payload(const char* directory, const pg_uuid_t& id, std::int64_t offset,
                             std::int64_t length) {
    ContentReader reader(path_in(directory, id));
    if (!reader.open())
        ereport(
            ERROR,
            (errcode(ERRCODE_NO_DATA_FOUND),
             errmsg("there is no payload %s in the archive \"%s\"", show_payload(id), directory),
             errhint("It is archived with the first of its messages that leaves the log.")));
    require_inside(id, reader.bytes(), offset);
    const std::int64_t rest = reader.bytes() - offset;
    const std::int64_t wanted = length < 0 ? rest : std::min(length, rest);
    bytea* result = make_bytea(wanted);
    std::int64_t at = 0;  // of the content
    for (std::string_view part = reader.next(); !part.empty(); part = reader.next()) {
        const auto size = static_cast<std::int64_t>(part.size());
        const std::int64_t first = std::max(at, offset);
        const std::int64_t last = std::min(at + size, offset + wanted);
        if (first < last)
            std::memcpy(VARDATA(result) + (first - offset), part.data() + (first - at),
                        static_cast<std::size_t>(last - first));
        at += size;
    }
    reader.close();
    return result;
}

}  // namespace herald
