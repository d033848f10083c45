#include "gzip_join.h"

#include <zlib.h>

#include <utility>

namespace herald {

std::optional<std::string_view> GzipJoin::add(std::string_view member,
                                              std::uint64_t content_bytes) {
    const auto parts = read_gzip_member(member);
    if (!parts || parts->bytes != content_bytes) return std::nullopt;
    crc_ = static_cast<std::uint32_t>(
        crc32_combine(crc_, parts->crc, static_cast<z_off_t>(parts->bytes)));
    bytes_ += parts->bytes;
    if (std::exchange(begun_, true)) return parts->data;
    return member.substr(0, kGzipHead.size() + parts->data.size());
}

std::string GzipJoin::end() const {
    const auto end = gzip_end(crc_, bytes_);
    return {end.begin(), end.end()};
}

}  // namespace herald
