// Chunks of payloads: pieces of a content that are compressed one by one, so that a range is read
// without what lies before it. Each is a whole frame of its format (zstd, RFC 8878; gzip, RFC 1952)
// also where that saves nothing, so that frames one after the other are a valid stream of it. Those
// of gzip are of a form (gzip_member.h) that makes it easy to join them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace herald {

enum class Compression : std::uint8_t { kNone, kGzip, kZstd };

// Most bytes of the content in a chunk.
constexpr std::size_t kMaxChunk = 256 * 1024;

std::optional<Compression> compression_by_name(std::string_view name);
const char* compression_name(Compression compression);

// How long the frame of so many bytes can be.
std::size_t compress_bound(Compression compression, std::size_t bytes);

// Writes the frame of `content` and gives its length; 0: there is no memory. `out` has room for
// compress_bound.
std::size_t compress(Compression compression, std::string_view content, char* out,
                     std::size_t room);

// Writes the content of a frame. False unless `frame` is exactly one that contains exactly `bytes`;
// never writes more than these, whatever it says.
bool decompress(Compression compression, std::string_view frame, char* out, std::size_t bytes);

}  // namespace herald
