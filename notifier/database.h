// Database: the Bus on PostgreSQL. A pool of connections, a bounded queue before it.
//
// Use (loop thread only):
//     Result<PgTarget> target = PgTarget::parse(conninfo);          // start-up error if bad
//     Database database(loop, target.value(), {.pool_size = 4, .max_frame = 1 << 20});
//     database.start();                                             // connects, never gives up
//     database.read_page({.topics = "agent:*", .after = 118}, [](Result<Page> page) { … });
//     database.stop([] { … });    // running requests get a moment, all get their answer, then
//                                 // this; destroy the object only after it
//
// Invariants
// - Every callback runs exactly once, from a later turn of the loop than the call.
// - At most `max_waiting` requests wait; one more is answered "unavailable" (G10). A request waits
//   at most `wait_ms` for a connection, then "unavailable".
// - A connection that breaks under a read: the read is repeated once, on a connection made later
//   (others may have died with it). Under a send: "unavailable",
//   because nobody knows whether it was stored; its hint says to repeat with the same
//   idempotency_key.
// - Requests run side by side: there is no order between them. A session that wants its sends
//   stored in order sends the next one when it has the answer to the last.
// - Page::gap may reach beyond Page::upto and then comes again with the next page: tell a client
//   only of a gap whose `to` is above the last one told.
#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "bus.h"
#include "postgres.h"
#include "trouble_log.h"

namespace herald {

struct DatabaseOptions {
    int pool_size = 4;
    int max_frame = 1024 * 1024;     // bytes; a longer envelope comes in `ref` form
    std::size_t max_waiting = 1000;  // requests
    int wait_ms = 5000;              // for a connection
    int statement_timeout_ms = 30'000;
    int stop_grace_ms = 2000;  // for requests that are running when stop() is called
};

struct DatabaseStats {
    int connections = 0;  // ready or busy
    int busy = 0;
    std::size_t waiting = 0;
};

class Database final : public Bus, private PgConnection::Owner {
  public:
    Database(uv_loop_t* loop, const PgTarget& target, DatabaseOptions options);
    ~Database() override;
    void start();
    void stop(std::function<void()> done);
    DatabaseStats stats() const;

    void read_page(PageRequest request, std::function<void(Result<Page>)> done) override;
    void send(std::string message_json, std::function<void(Result<std::string>)> done) override;
    void message_by_id(std::string id, int max_bytes,
                       std::function<void(Result<std::optional<MessageById>>)> done) override;
    void read_payload(std::string id, std::uint64_t offset, std::uint64_t length,
                      std::function<void(Result<Bytes>)> done) override;
    void read_stored(std::string id, std::uint64_t from, int max_bytes,
                     std::function<void(Result<std::vector<StoredChunk>>)> done) override;
    void put_payload(NewPayload what, std::string content, std::string sha256,
                     std::function<void(Result<PutPayload>)> done) override;
    void open_payload(NewPayload what, std::function<void(Result<std::string>)> done) override;
    void write_payload(std::string id, std::uint64_t offset, std::string content,
                       std::function<void(Result<std::uint64_t>)> done) override;
    void close_payload(std::string id, std::string sha256,
                       std::function<void(Result<std::string>)> done) override;
    void abort_payload(std::string id, std::function<void(Result<std::monostate>)> done) override;
    void upload_state(std::string id,
                      std::function<void(Result<std::optional<UploadState>>)> done) override;

  private:
    struct Request {
        std::vector<PgCall> calls;
        bool repeatable = false;     // a read: harmless to run again
        std::uint64_t lost_at = 0;   // > 0: repeated already, on a connection made later only
        std::uint64_t deadline = 0;  // for getting a connection
        std::function<void(std::span<const PgRows>)> finish;
        std::function<void(Error)> fail;
    };

    void connection_ready(PgConnection& connection) override;
    void connection_lost(PgConnection& connection, const PgFailure& why) override;

    void submit(Request request);
    void dispatch();
    void run(PgConnection& connection, Request request);
    void ended(Request request, std::span<const PgRows> rows, const PgFailure* failure);
    void wait(Request request, bool in_front);
    void fail_later(Request request, Error why);
    void on_timer();
    void expire();
    void arm_timer();
    static void timer_callback(uv_timer_t* timer);
    void close_connections();
    void closed();

    uv_loop_t* loop_;
    DatabaseOptions options_;
    std::vector<std::unique_ptr<PgConnection>> pool_;
    std::deque<Request> waiting_;
    std::vector<std::function<void()>> later_;  // answers given from the timer
    UvOwned<uv_timer_t> timer_;
    TroubleLog trouble_{"database"};
    std::function<void()> stopped_;
    std::uint64_t stop_deadline_ = 0;
    std::size_t closing_ = 0;  // connections whose stop() has not reported
    bool stopping_ = false;
};

// What the database said, as the protocol's error: classes 22 23 42 54 0A P0 "rejected"; lost,
// 08 53 57 58, 25006, 40, 55P03 "unavailable" with retry_ms; else "internal".
Error error_of(const PgFailure& failure);

}  // namespace herald
