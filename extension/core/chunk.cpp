#include "chunk.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "gzip_member.h"

namespace herald {

namespace {

constexpr int kZstdLevel = 1;
constexpr int kGzipLevel = 1;
// zlib's most: half as many blocks, each with a head, as with its default.
constexpr int kGzipMemory = 9;
// zlib: the largest window, nothing around the data or a gzip header.
constexpr int kRawWindow = -15;
constexpr int kGzipWindow = 15 + 16;
// The ends of blocks, an empty one, and a byte that stays free: by it zlib shows that it has
// written everything.
constexpr std::size_t kFlushRoom = 16;

// Made once: a context costs as much as compressing a small chunk.
thread_local ZSTD_CCtx* zstd_writer = nullptr;
thread_local ZSTD_DCtx* zstd_reader = nullptr;

Bytef* bytes_of(const char* text) {
    return reinterpret_cast<Bytef*>(const_cast<char*>(text));  // zlib does not write there
}

// Writes the data of a member (gzip_member.h) and gives their length; 0: there is no memory, or not
// so much room.
std::size_t deflate_flushed(std::string_view content, char* out, std::size_t room) {
    z_stream stream{};
    if (deflateInit2(&stream, kGzipLevel, Z_DEFLATED, kRawWindow, kGzipMemory,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    stream.next_in = bytes_of(content.data());
    stream.avail_in = static_cast<uInt>(content.size());
    stream.next_out = bytes_of(out);
    stream.avail_out = static_cast<uInt>(room);
    const bool done = deflate(&stream, Z_SYNC_FLUSH) == Z_OK && stream.avail_out > 0;
    const std::size_t written = room - stream.avail_out;
    (void)deflateEnd(&stream);
    return done ? written : 0;
}

std::size_t gzip(std::string_view content, char* out, std::size_t room) {
    constexpr std::size_t kAround = kGzipHead.size() + kGzipEnd;
    char* data = std::copy(kGzipHead.begin(), kGzipHead.end(), out);
    const std::size_t written = deflate_flushed(content, data, room - kAround);
    if (written == 0) return 0;
    const auto bytes = static_cast<uInt>(content.size());
    const auto crc = static_cast<std::uint32_t>(crc32(0, bytes_of(content.data()), bytes));
    const auto end = gzip_end(crc, bytes);
    std::copy(end.begin(), end.end(), data + written);
    return kAround + written;
}

bool gunzip(std::string_view frame, char* out, std::size_t bytes) {
    z_stream stream{};
    if (inflateInit2(&stream, kGzipWindow) != Z_OK) return false;
    stream.next_in = bytes_of(frame.data());
    stream.avail_in = static_cast<uInt>(frame.size());
    stream.next_out = bytes_of(out);
    stream.avail_out = static_cast<uInt>(bytes);
    const bool whole =
        inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
    (void)inflateEnd(&stream);
    return whole;
}

std::size_t zstd(std::string_view content, char* out, std::size_t room) {
    if (zstd_writer == nullptr) zstd_writer = ZSTD_createCCtx();
    if (zstd_writer == nullptr) return 0;
    const std::size_t written =
        ZSTD_compressCCtx(zstd_writer, out, room, content.data(), content.size(), kZstdLevel);
    return ZSTD_isError(written) != 0 ? 0 : written;
}

bool unzstd(std::string_view frame, char* out, std::size_t bytes) {
    if (zstd_reader == nullptr) zstd_reader = ZSTD_createDCtx();
    if (zstd_reader == nullptr) return false;
    if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return false;
    const std::size_t written =
        ZSTD_decompressDCtx(zstd_reader, out, bytes, frame.data(), frame.size());
    return ZSTD_isError(written) == 0 && written == bytes;
}

}  // namespace

std::optional<Compression> compression_by_name(std::string_view name) {
    for (const Compression compression :
         {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
        if (name == compression_name(compression)) return compression;
    }
    return std::nullopt;
}

const char* compression_name(Compression compression) {
    switch (compression) {
        case Compression::kNone:
            return "none";
        case Compression::kGzip:
            return "gzip";
        case Compression::kZstd:
            break;
    }
    return "zstd";
}

std::size_t compress_bound(Compression compression, std::size_t bytes) {
    switch (compression) {
        case Compression::kNone:
            return bytes;
        case Compression::kGzip:
            // What zlib may need with other settings than its defaults (deflateBound).
            return bytes + bytes / 8 + bytes / 64 + kFlushRoom + kGzipHead.size() + kGzipEnd;
        case Compression::kZstd:
            break;
    }
    return ZSTD_compressBound(bytes);
}

std::size_t compress(Compression compression, std::string_view content, char* out,
                     std::size_t room) {
    switch (compression) {
        case Compression::kNone:
            std::memcpy(out, content.data(), content.size());
            return content.size();
        case Compression::kGzip:
            return gzip(content, out, room);
        case Compression::kZstd:
            break;
    }
    return zstd(content, out, room);
}

bool decompress(Compression compression, std::string_view frame, char* out, std::size_t bytes) {
    switch (compression) {
        case Compression::kNone:
            if (frame.size() != bytes) return false;
            std::memcpy(out, frame.data(), bytes);
            return true;
        case Compression::kGzip:
            return gunzip(frame, out, bytes);
        case Compression::kZstd:
            break;
    }
    return unzstd(frame, out, bytes);
}

}  // namespace herald
