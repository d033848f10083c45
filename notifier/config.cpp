#include "config.h"

#include <arpa/inet.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace herald {

namespace {

constexpr std::uint64_t kKilobyte = 1024;
constexpr std::uint64_t kGigabyte = 1024 * 1024 * 1024;

bool is_loopback(const std::string& host) {
    in_addr v4{};
    if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    in6_addr v6{};
    return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool is_numeric(const std::string& host) {
    in6_addr address{};
    return inet_pton(AF_INET, host.c_str(), &address) == 1 ||
           inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

Error listen_error(const std::string& text, const std::string& why, const std::string& hint) {
    return {.code = "invalid",
            .message = "--listen " + text + ": " + why,
            .hint = hint,
            .sqlstate = {},
            .field = "listen"};
}

std::string environment_name(const std::string& option) {
    std::string name = "HERALD_" + option;
    for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    return name;
}

bool is_given(const std::vector<std::string>& arguments, const std::string& flag) {
    return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
        return argument == flag || argument.starts_with(flag + "=");
    });
}

// CLI11 itself would let the file win over the environment; so an option that is set in the
// environment and not on the command line becomes an argument.
void add_environment(const CLI::App& app, std::vector<std::string>& arguments) {
    const std::vector<std::string> given = arguments;
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        if (name == "help" || name == "version") continue;
        const char* value = std::getenv(environment_name(name).c_str());
        if (value != nullptr && !is_given(given, "--" + name))
            arguments.push_back("--" + name + "=" + value);
    }
}

CLI::Validator bytes_between(std::uint64_t low, std::uint64_t high) {
    return CLI::Range(static_cast<double>(low), static_cast<double>(high));
}

void add_options(CLI::App& app, Config& config, std::string& listen) {
    const auto level = CLI::IsMember({"trace", "debug", "info", "warning", "error"});
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.set_config("--config", "", "Read options from this TOML file");
    app.add_option("--database", config.database, "Where PostgreSQL is: a libpq connection string");
    app.add_option("--listen", listen, "HOST:PORT to serve on, loopback only; port 0: a free one")
        ->capture_default_str();
    app.add_option("--log-format", config.log_format, "text or json")
        ->transform(CLI::CheckedTransformer(std::map<std::string, LogFormat>{
            {"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
    app.add_option("--log-level", config.log_level, "trace, debug, info, warning or error")
        ->check(level)
        ->capture_default_str();
    app.add_option("--max-frame", config.max_frame,
                   "Largest message in bytes (units allowed: 256kb, 1mb)")
        ->transform(CLI::AsSizeValue(false))
        ->check(bytes_between(kKilobyte, 64 * 1024 * kKilobyte))
        ->capture_default_str();
    app.add_option("--max-buffer", config.max_buffer,
                   "Bytes queued for one connection; a client further behind is cut off")
        ->transform(CLI::AsSizeValue(false))
        ->check(bytes_between(16 * kKilobyte, kGigabyte))
        ->capture_default_str();
    app.add_option("--ring-bytes", config.ring_bytes,
                   "Memory for recent messages; 0: clients that come back are served from the "
                   "database")
        ->transform(CLI::AsSizeValue(false))
        ->check(bytes_between(0, 16 * kGigabyte))
        ->capture_default_str();
    app.add_option("--max-connections", config.max_connections, "Connections at a time")
        ->check(CLI::Range(1, 1'000'000))
        ->capture_default_str();
    app.add_option("--max-subscriptions", config.max_subscriptions, "Subscriptions a connection")
        ->check(CLI::Range(1, 100'000))
        ->capture_default_str();
    app.add_option("--max-transfers", config.max_transfers,
                   "Payloads on their way at a time, up and down; each takes up to 4 MiB")
        ->check(CLI::Range(1, 100'000))
        ->capture_default_str();
    app.add_option("--ping-interval", config.ping_interval, "Seconds between pings")
        ->check(CLI::Range(0.01, 86400.0))
        ->capture_default_str();
    app.add_option("--idle-timeout", config.idle_timeout,
                   "Seconds of silence after which a client is dropped")
        ->check(CLI::Range(0.01, 86400.0))
        ->capture_default_str();
    app.add_option("--head-timeout", config.head_timeout,
                   "Seconds in which a request's head must be complete")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    app.add_option("--pool-size", config.pool_size, "Database connections beside the feed's")
        ->check(CLI::Range(1, 100))
        ->capture_default_str();
    app.add_option("--allow-origin", config.allow_origin,
                   "Origin of web pages that may connect besides our own, e.g. "
                   "https://app.example (repeatable)")
        ->delimiter(',');
    app.add_option("--allow-host", config.allow_host,
                   "Host name that may be used to reach us besides localhost (repeatable)")
        ->delimiter(',');
    app.add_option("--ready-fd", config.ready_fd,
                   "Write HOST:PORT and a line end to this descriptor when ready, then close it")
        ->check(CLI::Range(0, 1 << 20));
}

Result<Config> checked(Config config, const std::string& listen) {
    const auto invalid = [](std::string message, std::string hint, std::string field) {
        return Error{.code = "invalid",
                     .message = std::move(message),
                     .hint = std::move(hint),
                     .sqlstate = {},
                     .field = std::move(field)};
    };
    auto address = parse_listen(listen);
    if (!address) return address.error();
    config.host = address.value().host;
    config.port = address.value().port;
    if (config.database.empty())
        return invalid("--database is missing",
                       "Say where PostgreSQL is, e.g. --database 'host=/run/postgresql "
                       "dbname=app', or set HERALD_DATABASE.",
                       "database");
    if (config.idle_timeout <= config.ping_interval)
        return invalid("--idle-timeout must be longer than --ping-interval",
                       "A healthy silent client is heard of once per ping.", "idle-timeout");
    return config;
}

}  // namespace

Result<Address> parse_listen(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos)
        return listen_error(text, "not of the form HOST:PORT", "For example 127.0.0.1:8080.");
    Address address;
    address.host = text.substr(0, colon);
    const std::string_view digits = std::string_view(text).substr(colon + 1);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
    if (parsed.ec != std::errc{} || parsed.ptr != digits.data() + digits.size() ||
        address.port < 0 || address.port > 65535)
        return listen_error(text, "the port is not a number from 0 to 65535", "");
    if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']')
        address.host = address.host.substr(1, address.host.size() - 2);
    if (address.host == "localhost") address.host = "127.0.0.1";
    if (!is_numeric(address.host))
        return listen_error(text, "the host is neither localhost nor a numeric address",
                            "For example 127.0.0.1:8080 or [::1]:8080.");
    if (!is_loopback(address.host))
        return listen_error(text,
                            "not a loopback address, and clients are not authenticated: anybody "
                            "who can reach it could read and send every message",
                            "Listen on 127.0.0.1 or [::1].");
    return address;
}

std::variant<Config, EndNow> read_config(int argc, const char* const* argv) {
    Config config;
    std::string listen = "127.0.0.1:8080";
    CLI::App app{"Pushes the messages of pg_herald to WebSocket and HTTP clients.",
                 "herald-notifier"};
    app.set_version_flag("--version", "herald-notifier " HERALD_VERSION);
    app.footer(
        "Every option can also be set in the environment, e.g. HERALD_DATABASE, and in the "
        "--config file, e.g. database = \"dbname=app\".");
    add_options(app, config, listen);
    try {
        std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
        add_environment(app, arguments);
        std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
        app.parse(std::move(arguments));
    } catch (const CLI::CallForHelp&) {
        return EndNow{0, app.help()};
    } catch (const CLI::CallForVersion& version) {
        return EndNow{0, std::string(version.what()) + "\n"};
    } catch (const CLI::Error& error) {
        return EndNow{2, "herald-notifier: " + std::string(error.what()) +
                             "\nRun with --help for the options.\n"};
    }
    auto result = checked(std::move(config), listen);
    if (result) return std::move(result.value());
    const Error& error = result.error();
    return EndNow{2, "herald-notifier: " + error.message +
                         (error.hint.empty() ? "" : "\n" + error.hint) + "\n"};
}

}  // namespace herald
