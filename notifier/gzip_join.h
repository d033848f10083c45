// Joins gzip members of the form that chunks have (core/gzip_member.h) into one, because some
// clients read no further than the end of the first. The data stay as they are, uncopied: head and
// data of the first member, the data of each other, then one end for all. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/gzip_member.h"

namespace herald {

class GzipJoin {
  public:
    // How long the one is that so many become, at least one, which have so many bytes together.
    static constexpr std::uint64_t length(std::uint64_t bytes, std::uint64_t members) {
        return bytes - (members - 1) * (kGzipHead.size() + kGzipEnd);
    }

    // What goes out of the next one; nullopt if it has another form or a content of another length.
    std::optional<std::string_view> add(std::string_view member, std::uint64_t content_bytes);
    // What goes out after the last one.
    std::string end() const;

  private:
    bool begun_ = false;
    std::uint32_t crc_ = 0;    // of all contents so far
    std::uint32_t bytes_ = 0;  // theirs, modulo 2^32
};

}  // namespace herald
