// Routes: what each HTTP address answers.
//
//   /, /<file>                    the web page
//   /ws/connect                   WebSocket handshake; query: user, agent, workspace
//   /ws/connections[/{number}]    who is connected
//   /ws/stats                     counters
//   /healthz, /readyz             for supervisors
//   /topics/{topic}/messages      a page of history; query: after, max
//   /messages/{id}                one whole envelope, or the content of its payload
//   /payloads[/{id}]              uploads (see upload.h)
// Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "access.h"
#include "bus.h"
#include "connection.h"
#include "hub.h"
#include "session.h"
#include "transfers.h"

namespace herald {

class Routes final : public RequestHandler {
  public:
    // `ready`: whether the feed is live. `transfers`: payloads on their way at a time. The services
    // must outlive the routes.
    Routes(Access access, SessionServices& services, std::size_t transfers,
           std::function<bool()> ready);

    void on_request(Connection& connection, const Request& request) override;

  private:
    void connect(Connection& connection, const Request& request, const Target& target);
    void messages_of(Connection& connection, std::string_view topic, const Target& target);
    void message(Connection& connection, std::string_view id);
    void payload(Connection& connection, const Request& request, const Target& target);
    void give_up(Connection& connection, const Request& request, std::string_view upload);
    Response plain(const Request& request, std::string_view path);
    Response page(const Request& request, std::string_view path) const;
    Response connections() const;
    Response connection(std::string_view number) const;
    Response stats() const;

    Access access_;
    SessionServices& services_;
    Transfers transfers_;
    std::function<bool()> ready_;
    std::int64_t started_us_;
};

}  // namespace herald
