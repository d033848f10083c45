// HttpBody: takes the framing off a request's body: a length, or chunks (RFC 9112, section 7.1).
//
// Strict, because where a body ends decides where the next request begins: no bare line feeds, no
// sizes but hexadecimal ones, nothing between chunks. Bounded: a line of framing, and all trailers
// together, 16 KiB; framing altogether 32 KiB and 16 times the content. Trailers are passed over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "http.h"

namespace herald {

class HttpBody {
  public:
    static constexpr std::size_t kMaxLine = 16 * 1024;

    // nullopt: chunked.
    explicit HttpBody(std::optional<std::uint64_t> length);

    // Takes bytes up to the end of the next piece of content, of at most `room` bytes, or of the
    // body; returns how many. `content` is what they bring, a view into them, possibly empty. Take
    // no more after complete() or failure().
    std::size_t feed(std::string_view bytes, std::size_t room, std::string_view& content);
    bool complete() const { return state_ == State::kComplete; }
    const HttpFailure& failure() const { return failure_; }

  private:
    enum class State : std::uint8_t {
        kSize,       // the digits of a chunk's size
        kSpace,      // after them, before an extension
        kExtension,  // up to CR
        kSizeEnd,    // LF
        kContent,
        kContentCr,  // after a chunk
        kContentLf,
        kTrailer,  // at the beginning of a line after the last chunk
        kTrailerLine,
        kTrailerLf,
        kEnd,  // LF of the last, empty line
        kComplete,
        kFailed,
    };

    void take_framing(unsigned char byte);
    void take_size(unsigned char byte);
    void fail(const char* why, int status = 400);

    State state_;
    const bool chunked_;
    bool any_digit_ = false;
    std::uint64_t left_ = 0;     // of the content or chunk; while its size is read, the size so far
    std::uint64_t content_ = 0;  // of all chunks so far
    std::uint64_t framing_ = 0;  // bytes that are no content
    std::size_t line_ = 0;       // of these in the present line, or in all trailers
    HttpFailure failure_;
};

}  // namespace herald
