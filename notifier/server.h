// Server: wires the hub, the listener and the routes together, and takes in the feed.
// Loop thread only.
#pragma once

#include <uv.h>

#include <functional>
#include <span>
#include <string>

#include "bus.h"
#include "config.h"
#include "hub.h"
#include "listener.h"
#include "routes.h"
#include "session.h"

namespace herald {

class Server final : public FeedSink {
  public:
    // `bus` must outlive the server, or have reported its stop.
    Server(uv_loop_t* loop, const Config& config, Bus& bus);

    // Starts to serve. Gives "host:port" as it is.
    Result<std::string> listen();
    // Ends all connections, then calls `done`; destroy the server only after it.
    void stop(std::function<void()> done);

    const Listener& listener() const { return listener_; }

    void feed_started(Position pos) override;
    void feed_messages(std::span<const Row> rows, Position upto) override;
    void feed_lost(std::span<const Lost> lost) override;
    void feed_forget() override;
    void feed_reset(Position pos) override;
    void feed_connected(bool up) override;

  private:
    void tell_ready();

    const Config& config_;
    Hub hub_;
    Listener listener_;
    SessionServices services_;
    Routes routes_;
    std::string address_;
    bool feed_up_ = false;
    bool told_ready_ = false;
};

}  // namespace herald
