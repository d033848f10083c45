// UTF-8. Utf8Check: is this stream of bytes valid UTF-8 (RFC 3629)? Tells at the first byte that
// cannot be, so that a bad message is refused before it has come whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace herald {

class Utf8Check {
  public:
    // False as soon as the bytes so far cannot begin any valid text; then feed no more.
    bool feed(std::string_view bytes) {
        std::size_t at = 0;
        while (at < bytes.size()) {
            if (missing_ == 0) at = skip_ascii(bytes, at);
            if (at < bytes.size() && !take(static_cast<unsigned char>(bytes[at++]))) return false;
        }
        return true;
    }
    // Whether the text may end here: not inside a character.
    bool complete() const { return missing_ == 0; }

  private:
    static std::size_t skip_ascii(std::string_view bytes, std::size_t at) {
        while (at + 8 <= bytes.size()) {
            std::uint64_t eight = 0;
            std::memcpy(&eight, bytes.data() + at, 8);
            if ((eight & 0x8080808080808080) != 0) break;
            at += 8;
        }
        return at;
    }

    // Table 3-7 of the Unicode standard: only the second byte's range depends on the first.
    bool take(unsigned char byte) {
        if (missing_ > 0) {
            if (byte < low_ || byte > high_) return false;
            low_ = 0x80;
            high_ = 0xBF;
            --missing_;
            return true;
        }
        if (byte < 0x80) return true;
        if (byte < 0xC2 || byte > 0xF4) return false;
        missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
        high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
        return true;
    }

    std::uint8_t missing_ = 0;  // bytes until the character ends
    std::uint8_t low_ = 0x80;   // range of the next byte
    std::uint8_t high_ = 0xBF;
};

// At most `limit` bytes of valid UTF-8, not ending inside a character.
inline std::string_view cut_utf8(std::string_view text, std::size_t limit) {
    if (text.size() <= limit) return text;
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
    return text.substr(0, limit);
}

}  // namespace herald
