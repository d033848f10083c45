#include "server.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "close_code.h"

namespace herald {

namespace {

constexpr std::size_t kMaxReplayPage = 256 * 1024;

std::uint64_t milliseconds(double seconds) {
    return static_cast<std::uint64_t>(seconds * 1000);
}

ListenerOptions listener_options(const Config& config) {
    return {.max_connections = config.max_connections,
            .max_message = config.max_frame,
            .max_buffer = config.max_buffer,
            .ping_interval_ms = milliseconds(config.ping_interval),
            .idle_timeout_ms = milliseconds(config.idle_timeout),
            .head_timeout_ms = milliseconds(config.head_timeout)};
}

}  // namespace

Server::Server(uv_loop_t* loop, const Config& config, Bus& bus)
    : config_(config),
      hub_(config.ring_bytes),
      listener_(loop, listener_options(config), routes_),
      services_{.hub = hub_,
                .bus = bus,
                .listener = listener_,
                .max_subscriptions = config.max_subscriptions,
                // A replay's page must not overflow the output that has drained to a quarter.
                .page_bytes = static_cast<int>(std::min(kMaxReplayPage, config.max_buffer / 4))},
      routes_(Access(config.allow_origin, config.allow_host), services_, config.max_transfers,
              [this] { return feed_up_; }) {}

Result<std::string> Server::listen() {
    const auto port = listener_.listen(config_.host, config_.port);
    if (!port) return port.error();
    const bool v6 = config_.host.find(':') != std::string::npos;
    address_ = (v6 ? "[" + config_.host + "]" : config_.host) + ":" + std::to_string(port.value());
    spdlog::info("listening on http://{} (loopback only: clients are not authenticated)", address_);
    return address_;
}

void Server::stop(std::function<void()> done) {
    spdlog::info("stopping with {} connections", listener_.size());
    listener_.stop(std::move(done));
}

void Server::feed_started(Position pos) {
    hub_.start(pos);
}

void Server::feed_messages(std::span<const Row> rows, Position upto) {
    for (const Row& row : rows) hub_.publish(row);
    hub_.advance(upto);
}

void Server::feed_lost(std::span<const Lost> lost) {
    hub_.lose(lost);
}

void Server::feed_forget() {
    hub_.forget();
}

void Server::feed_reset(Position pos) {
    spdlog::warn("the log went back to {}: all clients start afresh", pos);
    hub_.reset(pos);
    listener_.for_each([](Connection& connection) {
        connection.close(kCloseReset, "the log went back; start afresh");
    });
}

void Server::feed_connected(bool up) {
    feed_up_ = up;
    if (up) tell_ready();
}

void Server::tell_ready() {
    if (told_ready_) return;
    told_ready_ = true;
    spdlog::info("ready at position {}", hub_.position());
    if (config_.ready_fd < 0) return;
    const std::string line = address_ + "\n";
    if (::write(config_.ready_fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
        spdlog::error("cannot write to --ready-fd {}", config_.ready_fd);
    ::close(config_.ready_fd);
}

}  // namespace herald
