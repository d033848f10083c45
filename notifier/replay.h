// Replay: brings subscriptions that ask for the past (`after`, `last`) up to the present and hands
// them over to the hub, so that nothing is lost and nothing comes twice.
//
// One subscription at a time, in the order they were asked for. Its cursor says how far the client
// has been served. It is advanced
//   - by pages from the database while it is below the ring's floor, the next page only when the
//     output of the last has drained;
//   - from the ring once it is not: that needs no waiting, so the feed cannot move meanwhile;
//   - up to the feed's position and never beyond: rows that the database already has and the feed
//     has not are left to the feed.
// When the cursor has reached the feed's position, the subscription goes live in the same step. The
// hub delivers what is above the cursor, the replay has delivered what is below: exact. It
// converges because the ring's floor lags behind the feed by a whole ring.
//
// `after` may lie above the feed's position (the client was served by another notifier that is
// ahead). Then the database is asked, to find out whether the log went back; if not, the
// subscription goes live from `after`, and the hub passes over what the client has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "bus.h"
#include "protocol.h"

namespace herald {

class Session;

class Replay {
  public:
    explicit Replay(Session& session) : session_(session) {}

    // The session has the subscription already, not live.
    void add(std::string id, SubRequest request);
    // Goes on as far as it can; call it again when the output has drained.
    void advance();
    // The subscription is given up by its client; the sub request gets an err.
    void cancel(std::string_view topics);
    // The database's answer to the question for job `number`.
    void got(std::uint64_t number, const Result<Page>& result);
    // Nothing is left to do or to wait for.
    bool done() const { return jobs_.empty() && !asking_; }

  private:
    struct Job {
        std::uint64_t number;
        std::string id;
        std::string topics;
        std::optional<int> last;
        Position cursor;
        bool ask;                // the database must be asked, whatever the ring has
        Position told_gap = -1;  // `to` of the last gap the client was told of
    };

    void ask(const Job& job);
    void take(Job& job, const Page& page);
    void tell_gap(Job& job, Position to, std::string_view why);
    bool finish_from_ring(Job& job);
    bool wants(const Job& job, Position pos, std::string_view topic) const;

    Session& session_;
    std::deque<Job> jobs_;
    std::uint64_t last_number_ = 0;
    bool asking_ = false;
};

}  // namespace herald
