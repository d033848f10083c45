// The files of notifier/web, embedded by the build (see embed.cmake).
#pragma once

#include <span>
#include <string_view>

namespace herald {

struct Asset {
    std::string_view path;  // "/" for index.html, else "/" and the file's name
    std::string_view type;  // Content-Type
    std::string_view etag;  // quoted
    std::string_view body;
};

std::span<const Asset> assets();

}  // namespace herald
