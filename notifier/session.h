// Session: what one WebSocket client subscribes to and sends, in the protocol of protocol.h.
//
// Invariants
// - A subscription is either waiting for its replay (see replay.h) or live in the hub, never both.
// - Sends are stored in the order in which they came: one is with the database, the others wait.
//   While kMaxWaitingSends or kMaxWaitingBytes wait, nothing is read from the client; what one
//   read had already brought is still taken.
// - The database answers to a session number, not to a pointer: the session may be gone by then.
// - Every request with an id gets exactly one ok or err, unless the connection ends first.
// Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bus.h"
#include "connection.h"
#include "hub.h"
#include "protocol.h"

namespace herald {

class Replay;
class Session;

// What all sessions share.
struct SessionServices {
    Hub& hub;
    Bus& bus;
    Listener& listener;
    std::size_t max_subscriptions = 1000;
    int page_bytes = 256 * 1024;  // of a replay; not more than the low-water mark allows
    std::uint64_t sends = 0;      // accepted by the database
    std::uint64_t errors = 0;     // err frames
    std::minstd_rand random{std::random_device{}()};

    // The session with this number, or null if it is gone or closing.
    Session* find(Connection::Number number) const;
};

// Who a client says it is. Each at most 200 characters, may be empty.
struct Identity {
    std::string user;
    std::string agent;
    std::string workspace;
};

struct Subscription {
    std::string topics;  // a topic or a pattern
    Position start = 0;  // it gets everything above this; final when it is live
    bool live = false;
};

class Session final : public MessageHandler, public Subscriber {
  public:
    static constexpr std::size_t kMaxWaitingSends = 32;
    static constexpr std::size_t kMaxWaitingBytes = 256 * 1024;

    Session(Connection& connection, SessionServices& services, Identity identity);
    ~Session() override;

    const Identity& identity() const { return identity_; }
    const std::vector<Subscription>& subscriptions() const { return subscriptions_; }

    // For the replay.
    Connection& connection() { return connection_; }
    SessionServices& services() { return services_; }
    void send_text(const std::string& frame) { connection_.send(Frame::text(frame)); }
    void refuse(std::string_view id, const Error& error);
    // The subscription begins to hear the hub: it has everything up to `cursor`.
    void go_live(std::string_view topics, Position cursor, std::string_view id);
    Subscription* find_subscription(std::string_view topics);
    void drop_subscription(std::string_view topics);
    // Whether a live subscription other than that to `topics` has brought, or will bring, this
    // message to this connection.
    bool covered_by_other(std::string_view topics, Position pos, std::string_view topic) const;
    // The database's answer to a question of the replay.
    void page_came(std::uint64_t job, const Result<Page>& page);

  private:
    struct WaitingSend {
        std::string id;
        std::string message;
    };
    struct Sends {
        std::deque<WaitingSend> waiting;
        std::size_t bytes = 0;
        std::string id;  // of the one that is with the database
    };

    void on_text(std::string_view text) override;
    void on_binary(std::string_view bytes) override;
    void on_drained() override;
    void on_closed() override;
    Frame farewell(std::uint16_t code, std::string_view why) override;
    void hear(Position pos, const Frame& frame) override;
    void miss(std::string_view topics, Position from, Position to, std::string_view why) override;

    void subscribe(const std::string& id, SubRequest request);
    void release_replay();
    void unsubscribe(const std::string& id, const UnsubRequest& request);
    void send(std::string id, SendRequest request);
    void give_to_database(WaitingSend next);
    void stored(Result<std::string> result);

    Connection& connection_;
    SessionServices& services_;
    const Identity identity_;
    std::vector<Subscription> subscriptions_;
    std::unique_ptr<Replay> replay_;  // while a subscription waits for one
    std::unique_ptr<Sends> sends_;    // while a send is with the database
};

}  // namespace herald
