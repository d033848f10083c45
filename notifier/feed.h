// Feed: pours the whole log, in order and without holes, into a FeedSink.
//
// Use (loop thread only):
//     Feed feed(loop, target, sink, {.max_frame = 1 << 20});
//     feed.start();               // connects, never gives up
//     feed.stop([] { … });        // nothing is called any more; destroy only after it
//
// Order of the calls on the sink: feed_started(pos) once, then feed_connected(true); then
// feed_messages / feed_forget / feed_reset as they come. Connection lost: feed_connected(false).
// Back: feed_forget(), feed_messages(…) with what was missed, and feed_connected(true) when the
// feed has caught up with the log. feed_messages may come without rows when only `upto` moved.
// All from the loop, never from inside start().
#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "bus.h"
#include "postgres.h"
#include "trouble_log.h"

namespace herald {

struct FeedOptions {
    int max_frame = 1024 * 1024;  // bytes; a longer envelope comes in `ref` form
    int page_rows = 1000;
    int page_bytes = 1024 * 1024;  // of envelopes
    int look_ms = 5000;            // looks without a doorbell, at least this often
    int statement_timeout_ms = 30'000;
};

// Where the feed stands and whether there is more to read. Pure: no connection, no clock.
class FeedCursor {
  public:
    enum class Ring { kNothing, kRead, kForget };
    enum class Next {
        kWait,   // all that is known of has been read
        kRead,   // read the next page at once
        kSoon,   // the log is known to have grown, but not yet decided that far: look again soon
        kReset,  // the log went back; position() is the new one
    };

    // The first position of all.
    void start(Position pos);
    bool started() const { return started_; }
    Position position() const { return position_; }
    // Something may have been missed (reconnected, or nothing heard for long): read until a page
    // brings nothing.
    void catch_up() { catching_up_ = true; }
    bool catching_up() const { return catching_up_; }
    // A doorbell: the decimal position of the last message, or "reset". Anything else is not ours
    // (everybody may NOTIFY).
    Ring ring(std::string_view payload);
    // A page was read from position(): `rows` messages, complete up to `upto`.
    Next page(std::size_t rows, Position upto);

  private:
    Position position_ = 0;
    Position wanted_ = 0;  // highest position that rang
    bool started_ = false;
    bool catching_up_ = false;
};

class Feed final : private PgConnection::Owner {
  public:
    Feed(uv_loop_t* loop, PgTarget target, FeedSink& sink, FeedOptions options);
    ~Feed() override;
    void start();
    void stop(std::function<void()> done);
    // Where the feed stands; 0 before feed_started.
    Position position() const { return cursor_.position(); }

  private:
    void connection_ready(PgConnection& connection) override;
    void connection_lost(PgConnection& connection, const PgFailure& why) override;
    void notification(PgConnection& connection, std::string_view channel,
                      std::string_view payload) override;

    void ask_horizon();
    void read();
    void forget();
    void got_page(const PgRows& result);
    void failed(const PgFailure& why);
    void look_in(int milliseconds);

    FeedSink& sink_;
    FeedOptions options_;
    FeedCursor cursor_;
    PgConnection connection_;
    UvOwned<uv_timer_t> timer_;
    TroubleLog trouble_{"feed"};
    std::vector<Row> rows_;  // reused from page to page, as is the next
    std::vector<Lost> lost_;
    std::uint64_t reads_ = 0;       // begun
    std::uint64_t fresh_read_ = 0;  // the first one begun after the last forget()
    bool forgetting_ = false;       // until a fresh read has caught up
    int soon_ms_ = 0;    // wait before the next look when the horizon lags or a read failed
    bool live_ = false;  // caught up since the last connect
    bool stopping_ = false;
};

}  // namespace herald
