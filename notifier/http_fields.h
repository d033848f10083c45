// What the fields of HTTP say about representations: conditions and ranges (RFC 9110), digests
// (RFC 9530), booleans and integers of structured fields (RFC 8941). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http.h"

namespace herald {

// What a Range field asks of a representation of `size` bytes.
struct RangeChoice {
    enum class Kind : std::uint8_t {
        kWhole,          // no range, several, not bytes, or malformed: the field is ignored
        kPart,           // `length` bytes from `from`
        kUnsatisfiable,  // 416
    };
    Kind kind = Kind::kWhole;
    std::uint64_t from = 0;
    std::uint64_t length = 0;
};
RangeChoice choose_range(std::string_view field, std::uint64_t size);

// Whether a list of entity tags (If-Match, If-None-Match), in any of its lines, has this strong
// one, or is `*`. `weak`: a weak tag in the list is as good.
bool lists_etag(const Request& request, std::string_view lower_case_name, std::string_view etag,
                bool weak);
// Whether Accept-Encoding names the coding, not with q=0. `*` names none.
bool accepts_coding(const Request& request, std::string_view coding);

// ?1 and ?0; nullopt for anything else.
std::optional<bool> structured_boolean(std::string_view field);
// An integer from 0 to 10^15-1; nullopt for anything else.
std::optional<std::uint64_t> structured_integer(std::string_view field);

// The SHA-256 that a digest field gives: 32 bytes.
struct DigestField {
    bool present = false;
    std::optional<std::string> sha256;  // nullopt: the field is malformed or has no sha-256
};
DigestField read_digest(const Request& request, std::string_view lower_case_name);
// sha-256=:…:
std::string digest_field(std::string_view sha256);

// "image/png", "text/plain; charset=utf-8": type/subtype of token characters, then parameters of
// visible ASCII, spaces and tabs; at most 200 characters.
bool is_media_type(std::string_view text);

// "00ff…" of bytes, and back; nullopt if it is not pairs of hexadecimal digits.
std::string hex_of(std::string_view bytes);
std::optional<std::string> bytes_of_hex(std::string_view hex);

}  // namespace herald
