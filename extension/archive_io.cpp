#include "archive_io.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>

namespace herald {

namespace {

// The number of frames that is ours.
constexpr std::uint32_t kHeaderMagic = 0x184D2A5B;

// The fields of a frame are little-endian.
void put_number(char* at, std::uint32_t number) {
    for (unsigned i = 0; i < 4; ++i) at[i] = static_cast<char>((number >> (8 * i)) & 0xFFU);
}
std::uint32_t get_number(const char* at) {
    std::uint32_t number = 0;
    for (unsigned i = 0; i < 4; ++i)
        number |= std::uint32_t{static_cast<unsigned char>(at[i])} << (8 * i);
    return number;
}

}  // namespace

void refuse_file(const char* path, const char* what) {
    ereport(ERROR, (errcode_for_file_access(), errmsg("could not %s file \"%s\": %m", what, path)));
    pg_unreachable();
}

int create_file(const char* path) {
    if (unlink(path) != 0 && errno != ENOENT) refuse_file(path, "remove");
    const int file =
        OpenTransientFilePerm(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, S_IRUSR | S_IWUSR);
    if (file < 0) refuse_file(path, "create");
    return file;
}

void write_file(int file, const char* path, const void* data, std::size_t size) {
    const char* rest = static_cast<const char*>(data);
    while (size > 0) {
        errno = 0;
        const ssize_t written = write(file, rest, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            if (errno == 0) errno = ENOSPC;
            refuse_file(path, "write");
        }
        rest += written;
        size -= static_cast<std::size_t>(written);
    }
}

std::size_t read_file(int file, const char* path, void* data, std::size_t size) {
    ssize_t got = 0;
    do {
        got = read(file, data, size);
    } while (got < 0 && errno == EINTR);
    if (got < 0) refuse_file(path, "read");
    return static_cast<std::size_t>(got);
}

void finish_file(int file, const char* path) {
    if (pg_fsync(file) != 0) refuse_file(path, "fsync");
    if (CloseTransientFile(file) != 0) refuse_file(path, "close");
}

bool make_header_frame(char* frame, std::size_t size, std::string_view text) {
    if (kFrameStart + text.size() >= size) return false;
    std::memset(frame, ' ', size);
    put_number(frame, kHeaderMagic);
    put_number(frame + 4, static_cast<std::uint32_t>(size - kFrameStart));
    std::memcpy(frame + kFrameStart, text.data(), text.size());
    frame[size - 1] = '\n';
    return true;
}

bool has_header_frame(const char* data, std::size_t size) {
    return size >= kFrameStart && get_number(data) == kHeaderMagic;
}

std::string_view header_text(const char* data, std::size_t there, std::size_t size) {
    if (!has_header_frame(data, there) || there < size ||
        get_number(data + 4) != size - kFrameStart)
        return {};
    const std::string_view text(data + kFrameStart, size - kFrameStart);
    return text.substr(0, text.find_last_not_of(" \n") + 1);
}

void free_with_context(void* object, void (*free_object)(void*)) {
    auto* callback = static_cast<MemoryContextCallback*>(palloc(sizeof(MemoryContextCallback)));
    callback->func = free_object;
    callback->arg = object;
    MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
}

ZSTD_DCtx_s* make_decompressor(int window_log) {
    ZSTD_DCtx* zstd = ZSTD_createDCtx();
    if (zstd == nullptr) refuse_archive_memory();
    free_with_context(zstd, [](void* context) { ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(context)); });
    (void)ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, window_log);
    return zstd;
}

void refuse_archive_memory() {
    ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
                    errdetail("Compression needs some megabytes.")));
    pg_unreachable();
}

}  // namespace herald
