// Why nothing is missed: the connection LISTENs before it reads. A message committed before the
// LISTEN took effect is seen by the read that follows, because that read's snapshot is younger; one
// committed later rings the doorbell. A doorbell that comes while a page is being read is
// remembered by the cursor. This holds for the first connection (horizon() takes the place of the
// read) and for every later one. A doorbell may also get lost without the connection (NOTIFY turned
// off, a queue that was full): every look_ms the feed looks by itself.
//
// A drop_topic announced while nobody listened is lost as well, therefore cached history is
// forgotten at every reconnect.
#include "feed.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "log_page.h"

namespace herald {
namespace {

constexpr PgStatement kHorizon{"herald_horizon", "SELECT herald.horizon()::bigint"};

// First wait when the log has grown but is not decided that far (a transaction still open).
constexpr int kSoonMs = 5;

PgConnection::Session session_of(const FeedOptions& options) {
    PgConnection::Session session;
    session.commands = session_commands(options.statement_timeout_ms);
    session.commands.emplace_back("LISTEN herald");
    session.statements = {kHorizon, kFeedStatement};
    session.command_timeout_ms = options.statement_timeout_ms + 10'000;
    return session;
}

}  // namespace

void FeedCursor::start(Position pos) {
    position_ = pos;
    started_ = true;
}

FeedCursor::Ring FeedCursor::ring(std::string_view payload) {
    if (payload == "reset") return Ring::kForget;
    Position pos = 0;
    const char* end = payload.data() + payload.size();
    const auto [stop, error] = std::from_chars(payload.data(), end, pos);
    if (error != std::errc() || stop != end) return Ring::kNothing;
    wanted_ = std::max(wanted_, pos);
    return started_ && wanted_ > position_ ? Ring::kRead : Ring::kNothing;
}

FeedCursor::Next FeedCursor::page(std::size_t rows, Position upto) {
    if (upto < position_) {
        position_ = upto;
        wanted_ = 0;
        catching_up_ = true;
        return Next::kReset;
    }
    const bool moved = upto > position_;
    position_ = upto;
    if (rows == 0) catching_up_ = false;
    if (wanted_ > position_) return moved ? Next::kRead : Next::kSoon;
    return catching_up_ ? Next::kRead : Next::kWait;
}

Feed::Feed(uv_loop_t* loop, PgTarget target, FeedSink& sink, FeedOptions options)
    : sink_(sink),
      options_(options),
      connection_(loop, std::move(target), session_of(options), *this),
      timer_(make_timer(loop, this)) {}

Feed::~Feed() = default;

void Feed::start() {
    connection_.start();
}

void Feed::stop(std::function<void()> done) {
    stopping_ = true;
    timer_.reset();
    connection_.stop(std::move(done));
}

void Feed::connection_ready(PgConnection&) {
    if (!cursor_.started()) {
        ask_horizon();
        return;
    }
    forget();
    if (!stopping_) read();
}

void Feed::connection_lost(PgConnection&, const PgFailure& why) {
    uv_timer_stop(timer_.get());
    trouble_.trouble(why);
    if (std::exchange(live_, false)) sink_.feed_connected(false);
}

void Feed::notification(PgConnection&, std::string_view, std::string_view payload) {
    switch (cursor_.ring(payload)) {
        case FeedCursor::Ring::kForget:
            forget();
            if (cursor_.started() && connection_.ready()) read();
            return;
        case FeedCursor::Ring::kRead:
            if (connection_.ready()) read();
            return;
        case FeedCursor::Ring::kNothing:
            return;
    }
}

void Feed::ask_horizon() {
    const std::array<PgCall, 1> calls{PgCall{kHorizon.name, {}}};
    connection_.run(calls, [this](std::span<const PgRows> rows, const PgFailure* failure) {
        if (failure != nullptr) {
            failed(*failure);
            return;
        }
        cursor_.start(rows[0].int8(0, 0));
        sink_.feed_started(cursor_.position());
        // What rang while the horizon was on its way is read now.
        cursor_.catch_up();
        if (!stopping_) read();
    });
}

void Feed::read() {
    uv_timer_stop(timer_.get());
    ++reads_;
    PgParameters parameters;
    parameters.null()
        .int8(cursor_.position())
        .int4(options_.page_rows)
        .int4(options_.page_bytes)
        .int4(options_.max_frame);
    const std::array<PgCall, 1> calls{PgCall{kFeedStatement.name, std::move(parameters)}};
    connection_.run(calls, [this](std::span<const PgRows> rows, const PgFailure* failure) {
        if (failure != nullptr) {
            failed(*failure);
        } else {
            got_page(rows[0]);
        }
    });
}

// What was dropped may lie above the feed's position; a page read from now on just lacks it, and a
// reader served from the cache would not be told of the gap. So the cache stays empty until the
// feed stands where the log stood after the drop.
void Feed::forget() {
    forgetting_ = true;
    fresh_read_ = reads_ + 1;
    cursor_.catch_up();
    if (cursor_.started()) sink_.feed_forget();
}

void Feed::got_page(const PgRows& result) {
    const std::optional<Position> upto = read_log_page(result, rows_, lost_);
    if (!upto) {
        failed({.message = "herald.feed() gave no closing row"});
        return;
    }
    const Position before = cursor_.position();
    FeedCursor::Next next = cursor_.page(rows_.size(), *upto);
    if (next == FeedCursor::Next::kReset) {
        spdlog::warn("feed: the log went back to position {}: every session starts afresh", *upto);
        sink_.feed_reset(*upto);
    } else if (!rows_.empty() || *upto > before) {
        if (!lost_.empty()) sink_.feed_lost(lost_);
        sink_.feed_messages(rows_, *upto);
        if (!lost_.empty()) sink_.feed_forget();
    }
    rows_.clear();
    lost_.clear();
    if (forgetting_) {
        sink_.feed_forget();
        if (next == FeedCursor::Next::kWait && reads_ < fresh_read_) {
            cursor_.catch_up();
            next = FeedCursor::Next::kRead;
        } else if (next == FeedCursor::Next::kWait) {
            forgetting_ = false;
        }
    }
    if (stopping_) return;
    if (!cursor_.catching_up() && !std::exchange(live_, true)) {
        trouble_.passed();
        sink_.feed_connected(true);
        if (stopping_) return;
    }
    if (next == FeedCursor::Next::kSoon) {
        soon_ms_ = std::min(soon_ms_ == 0 ? kSoonMs : soon_ms_ * 2, options_.look_ms);
        look_in(soon_ms_);
        return;
    }
    soon_ms_ = 0;
    if (next == FeedCursor::Next::kWait) {
        look_in(options_.look_ms);
    } else {
        read();
    }
}

// The statement failed though the connection lives.
void Feed::failed(const PgFailure& why) {
    if (why.lost || stopping_) return;  // connection_lost() says it, or nobody wants to know
    trouble_.trouble(why);
    if (std::exchange(live_, false)) sink_.feed_connected(false);
    if (stopping_) return;
    soon_ms_ = std::min(soon_ms_ == 0 ? kSoonMs : soon_ms_ * 2, options_.look_ms);
    look_in(soon_ms_);
}

void Feed::look_in(int milliseconds) {
    uv_timer_start(
        timer_.get(),
        [](uv_timer_t* timer) {
            Feed* feed = static_cast<Feed*>(timer->data);
            if (!feed->connection_.ready()) return;
            if (feed->cursor_.started()) {
                feed->cursor_.catch_up();
                feed->read();
            } else {
                feed->ask_horizon();
            }
        },
        static_cast<std::uint64_t>(milliseconds), 0);
}

}  // namespace herald
