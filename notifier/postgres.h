// One asynchronous connection to PostgreSQL on a libuv loop. It connects, sets the session up,
// runs one command at a time, hears notifications, and comes back by itself after any loss.
// Knows nothing of herald; Database and Feed say what is run.
//
// Loop thread only. Nothing here blocks: host names go through uv_getaddrinfo, everything else
// through libpq's non-blocking calls. Owner and command callbacks run from the loop, never from
// inside run() or start().
#pragma once

#include <libpq-fe.h>
#include <uv.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backoff.h"
#include "postgres_target.h"
#include "postgres_values.h"
#include "uv_owned.h"

namespace herald {

// A prepared statement, made once a connection.
struct PgStatement {
    const char* name;
    const char* sql;
};

struct PgCall {
    const char* statement;
    PgParameters parameters;
};

class PgConnection {
  public:
    class Owner {
      public:
        virtual ~Owner() = default;
        // Connected and set up; run() may be called.
        virtual void connection_ready(PgConnection& connection) = 0;
        // An attempt failed or a ready connection broke; it tries again by itself.
        virtual void connection_lost(PgConnection& connection, const PgFailure& why) = 0;
        virtual void notification(PgConnection&, std::string_view /*channel*/,
                                  std::string_view /*payload*/) {}
    };
    struct Session {
        std::vector<std::string> commands;    // e.g. LISTEN; in order, before the statements
        std::vector<PgStatement> statements;  // prepared at every connect
        int command_timeout_ms = 40'000;      // after that the server counts as gone
    };
    // Exactly once a run(): one PgRows per call, or empty rows and a failure.
    using Done = std::function<void(std::span<const PgRows> rows, const PgFailure* failure)>;

    PgConnection(uv_loop_t* loop, PgTarget target, Session session, Owner& owner);
    // Only before start() or after stop() has reported.
    ~PgConnection();
    PgConnection(const PgConnection&) = delete;
    PgConnection& operator=(const PgConnection&) = delete;

    void start();
    // Ends the connection; a running command gets its failure (lost) first, from inside stop().
    // Then nothing is called any more except `done`, from a later turn of the loop.
    void stop(std::function<void()> done);

    // Whether run() may be called now.
    bool ready() const { return state_ == State::kReady; }
    bool busy() const { return state_ == State::kBusy; }
    // Sends the calls in one flight, in one implicit transaction (each statement with its own
    // snapshot). Precondition: ready(). A loss found while sending is reported like any other.
    void run(std::span<const PgCall> calls, Done done);
    // Loop time in ms at which the connection last became ready.
    std::uint64_t ready_since() const { return ready_since_; }

  private:
    enum class State { kStopped, kWaiting, kResolving, kConnecting, kSettingUp, kReady, kBusy };
    struct Lookup;
    struct FinishConnection {
        void operator()(PGconn* connection) const { PQfinish(connection); }
    };
    struct ClearResult {
        void operator()(PGresult* result) const { PQclear(result); }
    };
    using OwnedResult = std::unique_ptr<PGresult, ClearResult>;

    void begin_attempt();
    void look_up_next();
    void looked_up(Lookup& lookup, int status, const addrinfo* addresses);
    void connect();
    void continue_connecting();
    void set_up();
    void became_ready();

    bool send_call(const PgCall& call);
    void finish_sending(bool sent);
    static void hear_notice(void* connection, const PGresult* notice);
    static void poll_callback(uv_poll_t* poll, int status, int ready);
    void on_poll(int events);
    void on_timer();
    void take_results();
    void command_ended();
    void drain_notifications();
    bool flush();
    void lose(PgFailure why);
    PgFailure connection_failure(const char* what) const;

    bool watch(int events);
    void start_timer(std::int64_t milliseconds);

    uv_loop_t* loop_;
    PgTarget target_;
    Session session_;
    Owner& owner_;
    State state_ = State::kStopped;
    Backoff backoff_{100, 3'000};
    std::uint64_t ready_since_ = 0;  // loop time, ms
    std::size_t first_host_ = 0;     // moves on after a time-out, so that a dead host is not in
                                     // front of a live one for ever
    UvOwned<uv_timer_t> timer_;
    UvOwned<uv_poll_t> poll_;
    int poll_fd_ = -1;
    int poll_events_ = 0;
    Lookup* lookup_ = nullptr;  // owned by libuv until its callback
    std::vector<PgTarget::Host> resolved_;
    std::size_t resolving_ = 0;
    std::string lookup_errors_;
    std::unique_ptr<PGconn, FinishConnection> connection_;

    std::vector<OwnedResult> results_;  // of the running command
    std::optional<PgFailure> failure_;  // its first error
    PgFailure last_words_;              // why the server says it ends the connection
    bool failed_in_send_ = false;       // loss noticed inside run(), told from the timer
    Done done_;
};

}  // namespace herald
