#include "http_body.h"

#include <algorithm>

namespace herald {

namespace {

constexpr std::uint64_t kMaxChunk = std::uint64_t{1} << 60;
constexpr std::uint64_t kFramingPerContent = 16;

int hex_value(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool is_control(unsigned char c) {
    return (c < ' ' && c != '\t') || c == 0x7F;
}

}  // namespace

HttpBody::HttpBody(std::optional<std::uint64_t> length)
    : state_(!length        ? State::kSize
             : *length == 0 ? State::kComplete
                            : State::kContent),
      chunked_(!length),
      left_(length.value_or(0)) {}

std::size_t HttpBody::feed(std::string_view bytes, std::size_t room, std::string_view& content) {
    content = {};
    std::size_t used = 0;
    while (used < bytes.size() && state_ != State::kContent && state_ != State::kComplete &&
           state_ != State::kFailed)
        take_framing(static_cast<unsigned char>(bytes[used++]));
    if (state_ != State::kContent) return used;
    content = bytes.substr(used, std::min<std::uint64_t>(left_, room));
    left_ -= content.size();
    content_ += content.size();
    if (left_ == 0) state_ = chunked_ ? State::kContentCr : State::kComplete;
    return used + content.size();
}

void HttpBody::fail(const char* why, int status) {
    state_ = State::kFailed;
    failure_ = {status, why};
}

void HttpBody::take_size(unsigned char byte) {
    if (const int digit = hex_value(byte); digit >= 0) {
        any_digit_ = true;
        left_ = left_ * 16 + static_cast<unsigned>(digit);
        if (left_ >= kMaxChunk) fail("a chunk is larger than any body may be", 413);
    } else if (!any_digit_) {
        fail("a chunk does not begin with its size");
    } else if (byte == '\r') {
        state_ = State::kSizeEnd;
    } else if (byte == ';') {
        state_ = State::kExtension;
    } else if (byte == ' ' || byte == '\t') {
        state_ = State::kSpace;
    } else {
        fail("a chunk's size is not hexadecimal");
    }
}

void HttpBody::take_framing(unsigned char byte) {
    ++framing_;
    ++line_;
    const auto demand = [&](unsigned char wanted, State next) {
        if (byte != wanted) return fail("the chunks of the body are malformed");
        state_ = next;
    };
    switch (state_) {
        case State::kSize:
            take_size(byte);
            break;
        case State::kSpace:
            if (byte != ' ' && byte != '\t') demand(';', State::kExtension);
            break;
        case State::kExtension:
            if (byte == '\r') {
                state_ = State::kSizeEnd;
            } else if (is_control(byte)) {
                fail("a chunk's extension has a control character");
            }
            break;
        case State::kSizeEnd:
            demand('\n', left_ > 0 ? State::kContent : State::kTrailer);
            line_ = 0;
            break;
        case State::kContentCr:
            demand('\r', State::kContentLf);
            break;
        case State::kContentLf:
            demand('\n', State::kSize);
            any_digit_ = false;
            break;
        case State::kTrailer:
            if (byte == '\r') {
                state_ = State::kEnd;
                break;
            }
            state_ = State::kTrailerLine;
            [[fallthrough]];
        case State::kTrailerLine:
            if (byte == '\r') {
                state_ = State::kTrailerLf;
            } else if (is_control(byte)) {
                fail("a trailer has a control character");
            }
            break;
        case State::kTrailerLf:
            demand('\n', State::kTrailer);
            break;
        case State::kEnd:
            demand('\n', State::kComplete);
            break;
        case State::kContent:
        case State::kComplete:
        case State::kFailed:
            break;
    }
    if (state_ == State::kFailed) return;
    if (line_ > kMaxLine) {
        fail("a chunk's extensions, or the trailers, are longer than 16 KiB", 431);
    } else if (framing_ > 2 * kMaxLine + kFramingPerContent * content_) {
        fail("the chunks of the body are too small for what they cost");
    }
}

}  // namespace herald
