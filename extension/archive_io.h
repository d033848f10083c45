// What the files of an archive have in common: they are written whole under a temporary name, and
// begin with a header in a frame that zstd's tools skip (RFC 8878, section 3.1.2).
#pragma once

#include <cstddef>
#include <string_view>

#include "pg.h"

struct ZSTD_DCtx_s;

namespace herald {

// Error with errno's reason: "could not <what> file …".
[[noreturn]] void refuse_file(const char* path, const char* what);

// Creates a file anew, also where an earlier attempt left one, so that nobody else's file or link
// is written to. Closed with the (sub)transaction.
int create_file(const char* path);
void write_file(int file, const char* path, const void* data, std::size_t size);
// Some bytes, at most `size`; 0 at the end.
std::size_t read_file(int file, const char* path, void* data, std::size_t size);
// Brings it to the disk and closes it.
void finish_file(int file, const char* path);

constexpr std::size_t kFrameStart = 8;
// Makes the header: `text`, padded with spaces and a line break; false if there is not so much
// room.
bool make_header_frame(char* frame, std::size_t size, std::string_view text);
// Whether there is a header at the beginning of a file.
bool has_header_frame(const char* data, std::size_t size);
// Its text if it has this size; otherwise an empty one.
std::string_view header_text(const char* data, std::size_t there, std::size_t size);

// Frees what a library allocated together with the current memory context.
void free_with_context(void* object, void (*free_object)(void*));

// For frames with windows of up to 2^window_log bytes; freed with the current memory context.
ZSTD_DCtx_s* make_decompressor(int window_log);

[[noreturn]] void refuse_archive_memory();

}  // namespace herald
