// Listener: the listening socket, the connections it accepted, and what they share: buffers, the
// one timer, the flush at the end of each turn of the loop.
//
// Invariants
// - At most max_connections, HTTP and WebSocket together; what comes above is answered 503. Of
//   those refused at most kMaxRefused are being told at a time, the rest is closed at once.
// - What callbacks of one turn queue on a connection is written before the loop sleeps.
// Loop thread only.
#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "config.h"
#include "connection.h"
#include "deadlines.h"
#include "output.h"
#include "websocket.h"

namespace herald {

struct ListenerOptions {
    std::size_t max_connections = 10'000;
    std::size_t max_message = 1024 * 1024;  // bytes a client may send at once
    std::size_t max_buffer = 1024 * 1024;   // bytes queued per connection
    std::uint64_t ping_interval_ms = 30'000;
    std::uint64_t idle_timeout_ms = 60'000;
    std::uint64_t head_timeout_ms = 10'000;
};

struct ListenerStats {
    std::uint64_t accepted = 0;
    std::uint64_t refused = 0;
    std::size_t open = 0;             // WebSockets
    std::uint64_t closed_slow = 0;    // cut off with 4009
    std::uint64_t closed_idle = 0;    // 4000
    std::uint64_t closed_faulty = 0;  // protocol violations
};

class Listener {
  public:
    Listener(uv_loop_t* loop, ListenerOptions options, RequestHandler& handler);
    // Only before listen() or after stop() has reported.
    ~Listener();
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    // Starts accepting. Gives the port in use. Numeric host; port 0: any free one.
    Result<int> listen(const std::string& host, int port);
    // Accepts no more, ends all connections (WebSockets with bye and 1001; HTTP answers that are
    // on their way are finished), those left after kStopMs by force. Then calls `done`.
    void stop(std::function<void()> done);
    bool stopping() const { return stopping_; }

    // The connection with this number, or null if it is gone.
    Connection* find(Connection::Number number) const;
    std::size_t size() const { return connections_.size(); }
    void for_each(const std::function<void(Connection&)>& visit) const;
    const ListenerStats& stats() const { return stats_; }

    // For connections.
    uv_loop_t* loop() const { return loop_; }
    std::uint64_t now() const { return uv_now(loop_); }  // ms
    const ListenerOptions& options() const { return options_; }
    RequestHandler& handler() { return handler_; }
    OutputPool& output_pool() { return output_pool_; }
    ParserPool& parsers() { return parsers_; }
    uv_buf_t read_buffer();
    const Frame& ping() const { return ping_; }
    void schedule(TimedItem& item, std::uint64_t due);
    void cancel(TimedItem& item) { deadlines_.cancel(item); }
    void add_dirty(Connection& connection) { dirty_.push_back(&connection); }
    void remove(Connection& connection);
    void count_open(int change) { stats_.open += static_cast<std::size_t>(change); }
    void count_close(std::uint16_t code);

  private:
    static constexpr std::size_t kReadBuffer = 64 * 1024;
    static constexpr std::size_t kMaxRefused = 64;
    static constexpr std::uint64_t kStopMs = 4500;

    void accept();
    void flush();
    void on_timer();
    void arm_timer();
    void force_stop();
    void finish_stop();

    uv_loop_t* loop_;
    ListenerOptions options_;
    RequestHandler& handler_;
    OutputPool output_pool_;
    ParserPool parsers_;
    Frame ping_;
    std::unique_ptr<char[]> read_buffer_;
    std::unordered_map<Connection::Number, std::unique_ptr<Connection>> connections_;
    Connection::Number last_number_ = 0;
    std::vector<Connection*> dirty_;
    std::vector<Connection*> settling_;
    Deadlines deadlines_;
    std::uint64_t armed_for_ = UINT64_MAX;
    ListenerStats stats_;
    bool stopping_ = false;
    std::function<void()> stopped_;

    // Handles; all are closed in stop().
    struct Handles;
    std::unique_ptr<Handles> handles_;
};

// "127.0.0.1:8080", "[::1]:8080".
std::string address_text(const sockaddr_storage& address);

}  // namespace herald
