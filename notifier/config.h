// Config: what the operator can set, from the command line, the environment (HERALD_<OPTION>) and
// a TOML file (--config), in this order of precedence. Read once at start.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "log.h"
#include "result.h"

namespace herald {

struct Config {
    std::string database;
    std::string host = "127.0.0.1";  // a numeric loopback address
    int port = 8080;                 // 0: any free one
    LogFormat log_format = LogFormat::kText;
    std::string log_level = "info";

    std::uint64_t max_frame = 1024 * 1024;        // bytes, both directions
    std::uint64_t max_buffer = 1024 * 1024;       // bytes queued per connection
    std::uint64_t ring_bytes = 16 * 1024 * 1024;  // of recent messages; 0: none
    std::uint64_t max_connections = 10'000;
    std::uint64_t max_subscriptions = 1000;  // per connection
    std::uint64_t max_transfers = 64;        // payloads on their way
    double ping_interval = 30;               // seconds
    double idle_timeout = 60;                // seconds
    double head_timeout = 10;                // seconds
    int pool_size = 4;

    std::vector<std::string> allow_origin;
    std::vector<std::string> allow_host;
    int ready_fd = -1;
};

// The program is to end now: after --help or --version (code 0) or because of an error.
struct EndNow {
    int code = 0;
    std::string text;  // for standard output if code is 0, else for standard error
};

// argv as main() gets it; reads the environment and the --config file.
std::variant<Config, EndNow> read_config(int argc, const char* const* argv);

struct Address {
    std::string host;  // numeric, without brackets
    int port = 0;
};

// HOST:PORT with HOST localhost, an IPv4 address or an IPv6 address in brackets. Only loopback
// addresses are accepted.
Result<Address> parse_listen(const std::string& text);

}  // namespace herald
