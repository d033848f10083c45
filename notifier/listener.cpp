#include "listener.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "close_code.h"
#include "uv_owned.h"

namespace herald {

namespace {

constexpr int kBacklog = 1024;

Error system_error(const std::string& what, int failed) {
    return {.code = "internal",
            .message = what + ": " + uv_strerror(failed),
            .hint = {},
            .sqlstate = {},
            .field = {}};
}

template <typename Handle>
UvOwned<Handle> owned(Handle* handle, void* data) {
    handle->data = data;
    return UvOwned<Handle>(handle);
}

}  // namespace

struct Listener::Handles {
    UvOwned<uv_tcp_t> socket;
    UvOwned<uv_timer_t> deadline;
    UvOwned<uv_timer_t> stop;
    // Before the loop sleeps and after it wakes: see flush().
    UvOwned<uv_prepare_t> prepare;
    UvOwned<uv_check_t> check;
    UvOwned<uv_idle_t> awake;
};

Listener::Listener(uv_loop_t* loop, ListenerOptions options, RequestHandler& handler)
    : loop_(loop),
      options_(options),
      handler_(handler),
      parsers_(options.max_message),
      ping_(Frame::of(Opcode::kPing, {})),
      read_buffer_(std::make_unique<char[]>(kReadBuffer)) {}

Listener::~Listener() = default;

Result<int> Listener::listen(const std::string& host, int port) {
    sockaddr_storage address{};
    const std::string shown = host + " port " + std::to_string(port);
    if (uv_ip4_addr(host.c_str(), port, reinterpret_cast<sockaddr_in*>(&address)) != 0 &&
        uv_ip6_addr(host.c_str(), port, reinterpret_cast<sockaddr_in6*>(&address)) != 0)
        return Error{.code = "invalid",
                     .message = host + " is not a numeric address",
                     .hint = {},
                     .sqlstate = {},
                     .field = "listen"};

    handles_ = std::make_unique<Handles>();
    auto* socket = new uv_tcp_t;
    uv_tcp_init(loop_, socket);
    handles_->socket = owned(socket, this);
    int failed = uv_tcp_bind(socket, reinterpret_cast<const sockaddr*>(&address), 0);
    if (failed == 0) {
        const auto incoming = [](uv_stream_t* stream, int status) {
            auto& listener = *static_cast<Listener*>(stream->data);
            if (status == 0) {
                listener.accept();
            } else {
                spdlog::warn("cannot accept a connection: {}", uv_strerror(status));
            }
        };
        failed = uv_listen(reinterpret_cast<uv_stream_t*>(socket), kBacklog, incoming);
    }
    int length = sizeof address;
    if (failed == 0)
        failed = uv_tcp_getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
    if (failed != 0) {
        handles_.reset();
        return system_error("cannot listen on " + shown, failed);
    }

    handles_->deadline = make_timer(loop_, this);
    handles_->stop = make_timer(loop_, this);
    auto* prepare = new uv_prepare_t;
    uv_prepare_init(loop_, prepare);
    handles_->prepare = owned(prepare, this);
    auto* check = new uv_check_t;
    uv_check_init(loop_, check);
    handles_->check = owned(check, this);
    auto* awake = new uv_idle_t;
    uv_idle_init(loop_, awake);
    handles_->awake = owned(awake, this);
    uv_prepare_start(prepare,
                     [](uv_prepare_t* handle) { static_cast<Listener*>(handle->data)->flush(); });
    uv_check_start(check,
                   [](uv_check_t* handle) { static_cast<Listener*>(handle->data)->flush(); });
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);  // the port is at one place
    return static_cast<int>(ntohs(v4->sin_port));
}

void Listener::accept() {
    ++stats_.accepted;
    auto connection = std::make_unique<Connection>(*this, ++last_number_);
    Connection& accepted = *connection;
    const bool full = connections_.size() >= options_.max_connections;
    const bool very_full = connections_.size() >= options_.max_connections + kMaxRefused;
    connections_.emplace(accepted.number(), std::move(connection));
    auto* server = reinterpret_cast<uv_stream_t*>(handles_->socket.get());
    if (uv_accept(server, accepted.stream()) != 0) {
        accepted.destroy();
        return;
    }
    if (!full) {
        uv_tcp_nodelay(&accepted.socket_, 1);
        accepted.start();
        return;
    }
    ++stats_.refused;
    if (very_full) {
        accepted.destroy();
        return;
    }
    Response response = error_response(503, "unavailable", "too many connections");
    response.headers.emplace_back("Retry-After", "5");
    accepted.refuse(response);
}

Connection* Listener::find(Connection::Number number) const {
    const auto found = connections_.find(number);
    if (found == connections_.end()) return nullptr;
    return found->second->state_ == Connection::State::kClosed ? nullptr : found->second.get();
}

void Listener::for_each(const std::function<void(Connection&)>& visit) const {
    for (const auto& [number, connection] : connections_)
        if (connection->state_ != Connection::State::kClosed) visit(*connection);
}

void Listener::remove(Connection& connection) {
    if (connection.dirty_) std::erase(dirty_, &connection);
    connections_.erase(connection.number());
    if (stopping_) finish_stop();
}

uv_buf_t Listener::read_buffer() {
    return uv_buf_init(read_buffer_.get(), kReadBuffer);
}

void Listener::count_close(std::uint16_t code) {
    if (code == kCloseTooSlow) ++stats_.closed_slow;
    if (code == kCloseIdle) ++stats_.closed_idle;
    if (code >= kCloseProtocolError && code <= kCloseTooBig) ++stats_.closed_faulty;
}

// Runs after the loop's polling, for what sockets brought, and before it, for what timers brought.
// A connection that has more to do after its turn waits until the next one, so that none keeps the
// others waiting; then the loop must not sleep meanwhile.
void Listener::flush() {
    settling_.swap(dirty_);
    for (Connection* connection : settling_) connection->settle();
    settling_.clear();
    if (dirty_.empty()) {
        uv_idle_stop(handles_->awake.get());
    } else {
        uv_idle_start(handles_->awake.get(), [](uv_idle_t*) {});
    }
}

void Listener::schedule(TimedItem& item, std::uint64_t due) {
    deadlines_.schedule(item, due);
    if (due < armed_for_) arm_timer();
}

void Listener::arm_timer() {
    armed_for_ = deadlines_.empty() ? UINT64_MAX : deadlines_.next_due();
    if (armed_for_ == UINT64_MAX) return;
    const std::uint64_t wait = armed_for_ > now() ? armed_for_ - now() : 0;
    uv_timer_start(
        handles_->deadline.get(),
        [](uv_timer_t* timer) { static_cast<Listener*>(timer->data)->on_timer(); }, wait, 0);
}

void Listener::on_timer() {
    deadlines_.run(now());
    arm_timer();
}

void Listener::stop(std::function<void()> done) {
    stopping_ = true;
    stopped_ = std::move(done);
    if (!handles_) {
        stopped_();
        return;
    }
    handles_->socket.reset();
    for_each([](Connection& connection) { connection.stop(); });
    uv_timer_start(
        handles_->stop.get(),
        [](uv_timer_t* timer) { static_cast<Listener*>(timer->data)->force_stop(); },
        connections_.empty() ? 0 : kStopMs, 0);
}

void Listener::force_stop() {
    for_each([](Connection& connection) { connection.destroy(); });
    finish_stop();
}

void Listener::finish_stop() {
    if (!connections_.empty() || !handles_) return;
    handles_.reset();
    std::exchange(stopped_, {})();
}

std::string address_text(const sockaddr_storage& address) {
    char host[INET6_ADDRSTRLEN] = "";
    if (address.ss_family == AF_INET6) {
        const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
        uv_ip6_name(&v6, host, sizeof host);
        return "[" + std::string(host) + "]:" + std::to_string(ntohs(v6.sin6_port));
    }
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    uv_ip4_name(&v4, host, sizeof host);
    return std::string(host) + ":" + std::to_string(ntohs(v4.sin_port));
}

}  // namespace herald
