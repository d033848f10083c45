#include "postgres_target.h"

#include <fmt/format.h>
#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

namespace herald {
namespace {

struct FreeOptions {
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};
using OwnedOptions = std::unique_ptr<PQconninfoOption, FreeOptions>;

std::map<std::string, std::string> set_options(const PQconninfoOption* options) {
    std::map<std::string, std::string> result;
    for (; options != nullptr && options->keyword != nullptr; ++options) {
        if (options->val != nullptr && *options->val != '\0') {
            result[options->keyword] = options->val;
        }
    }
    return result;
}

std::vector<std::string> split(std::string_view list) {
    std::vector<std::string> parts;
    for (;;) {
        const std::size_t comma = list.find(',');
        parts.emplace_back(list.substr(0, comma));
        if (comma == std::string_view::npos) return parts;
        list.remove_prefix(comma + 1);
    }
}

// The whole text as a number from `low` to `high`.
bool parse_int(const std::string& text, int low, int high, int& value) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && stop == end && value >= low && value <= high;
}

Error invalid(std::string message) {
    Error error;
    error.code = "invalid";
    error.message = std::move(message);
    error.field = "database";
    return error;
}

}  // namespace

bool PgTarget::Host::needs_lookup() const {
    return address.empty() && !name.empty() && name.front() != '/' && name.front() != '@';
}

Result<PgTarget> PgTarget::parse(const std::string& conninfo) {
    char* words = nullptr;
    const OwnedOptions given(PQconninfoParse(conninfo.c_str(), &words));
    if (given == nullptr) {
        std::string message = words == nullptr ? "out of memory" : words;
        PQfreemem(words);
        while (message.ends_with('\n')) message.pop_back();
        return invalid("bad connection string: " + message);
    }
    PgTarget target;
    target.options_ = set_options(given.get());
    if (const auto service = target.options_.find("service"); service != target.options_.end()) {
        setenv("PGSERVICE", service->second.c_str(), 1);
    }
    const OwnedOptions standing(PQconndefaults());
    auto all = set_options(standing.get());
    for (const auto& [keyword, value] : target.options_) all[keyword] = value;

    const std::vector<std::string> names = split(all["host"]);
    const std::vector<std::string> addresses = split(all["hostaddr"]);
    const std::vector<std::string> ports = split(all["port"]);
    const std::size_t count = all["hostaddr"].empty() ? names.size() : addresses.size();
    if (!all["host"].empty() && names.size() != count) {
        return invalid(fmt::format("{} host names but {} host addresses", names.size(), count));
    }
    if (ports.size() != 1 && ports.size() != count) {
        return invalid(fmt::format("{} ports for {} hosts", ports.size(), count));
    }
    for (std::size_t i = 0; i < count; ++i) {
        Host host;
        if (!all["host"].empty()) host.name = names[i];
        if (!all["hostaddr"].empty()) host.address = addresses[i];
        host.port = ports.size() == 1 ? ports[0] : ports[i];
        int number = 0;
        if (!host.port.empty() && !parse_int(host.port, 1, 65535, number)) {
            return invalid("port \"" + host.port + "\" is not a number from 1 to 65535");
        }
        target.hosts_.push_back(std::move(host));
    }
    if (const std::string& text = all["connect_timeout"]; !text.empty()) {
        int seconds = 0;
        if (!parse_int(text, -1, 3600, seconds)) {
            return invalid("connect_timeout \"" + text + "\" is not a number of seconds");
        }
        // libpq waits for ever at 0; a notifier that does so never tries the next host.
        if (seconds > 0) target.connect_timeout_ms_ = seconds * 1000;
    }
    // What a dead network does to an idle connection is found out within 25 s, to a busy one
    // within 15 s, instead of hours.
    for (const auto& [keyword, value] : {std::pair{"fallback_application_name", "herald-notifier"},
                                         {"keepalives_idle", "10"},
                                         {"keepalives_interval", "5"},
                                         {"keepalives_count", "3"},
                                         {"tcp_user_timeout", "15000"}}) {
        if (!all.contains(keyword)) target.options_[keyword] = value;
    }
    // Not the user's choice: envelopes go to clients as they come, and JSON is UTF-8.
    target.options_["client_encoding"] = "UTF8";
    target.database_ = all["dbname"];
    return target;
}

std::map<std::string, std::string> PgTarget::parameters(std::span<const Host> hosts) const {
    std::map<std::string, std::string> result = options_;
    const auto list = [&](const char* keyword, std::string Host::*member) {
        std::string joined;
        bool any = false;
        for (const Host& host : hosts) {
            if (&host != hosts.data()) joined += ',';
            joined += host.*member;
            any = any || !(host.*member).empty();
        }
        result.erase(keyword);
        if (any) result[keyword] = joined;
    };
    list("host", &Host::name);
    list("hostaddr", &Host::address);
    list("port", &Host::port);
    return result;
}

std::string PgTarget::describe() const {
    std::string text = "database \"" + database_ + "\" at ";
    for (const Host& host : hosts_) {
        if (&host != hosts_.data()) text += ", ";
        const std::string& place = host.name.empty() ? host.address : host.name;
        text += place.empty() ? "the default socket" : place;
        if (!host.port.empty()) text += ":" + host.port;
    }
    return text;
}

}  // namespace herald
