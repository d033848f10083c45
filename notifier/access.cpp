#include "access.h"

#include <algorithm>

namespace herald {

namespace {

// "localhost:8080" → "localhost"; "[::1]:8080" → "[::1]"; empty if malformed.
std::string_view without_port(std::string_view host) {
    const std::size_t bracket = host.starts_with('[') ? host.find(']') : 0;
    if (bracket == std::string_view::npos) return {};
    const std::size_t colon = host.find(':', bracket);
    if (colon == std::string_view::npos) return host;
    if (host.find_first_not_of("0123456789", colon + 1) != std::string_view::npos) return {};
    return host.substr(0, colon);
}

std::string_view without_default_port(std::string_view host, std::string_view port) {
    if (host.ends_with(port)) host.remove_suffix(port.size());
    return host;
}

}  // namespace

bool Access::host_allowed(std::string_view host) const {
    const std::string_view name = without_port(host);
    for (const std::string_view ours : {"localhost", "127.0.0.1", "[::1]"})
        if (equal_ignoring_case(name, ours)) return true;
    return !name.empty() && std::any_of(hosts_.begin(), hosts_.end(), [&](const std::string& own) {
        return equal_ignoring_case(own, name) || equal_ignoring_case(own, host);
    });
}

bool Access::origin_allowed(std::string_view origin, std::string_view host) const {
    for (const std::string& allowed : origins_)
        if (equal_ignoring_case(allowed, origin)) return true;
    for (const auto& [scheme, port] :
         {std::pair<std::string_view, std::string_view>{"http://", ":80"}, {"https://", ":443"}}) {
        if (!origin.starts_with(scheme)) continue;
        return equal_ignoring_case(without_default_port(origin.substr(scheme.size()), port),
                                   without_default_port(host, port));
    }
    return false;
}

std::optional<Response> Access::refuse(const Request& request) const {
    const std::string_view host = request.header("host").value_or("");
    if (!host_allowed(host))
        return error_response(421, "invalid",
                              "this host name is not served here; --allow-host would allow it");
    if (request.count("origin") == 0) return std::nullopt;
    if (request.count("origin") > 1 || !origin_allowed(*request.header("origin"), host))
        return error_response(
            403, "invalid", "pages of this origin may not connect; --allow-origin would allow it");
    return std::nullopt;
}

}  // namespace herald
