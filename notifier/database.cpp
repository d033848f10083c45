#include "database.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "database_payloads.h"
#include "log_page.h"

namespace herald {
namespace {

constexpr int kRetryMs = 500;

constexpr PgStatement kGap{"herald_gap",
                           "SELECT to_pos::bigint, why::text"
                           " FROM herald.gap($1::text, $2::bigint)"};

constexpr PgStatement kSend{"herald_send", "SELECT herald.send_object($1::text::jsonb)::text"};

// A text over the limit does not travel; its length says why.
constexpr PgStatement kById{
    "herald_by_id",
    "WITH one AS MATERIALIZED ("
    "SELECT herald.envelope(m)::text AS envelope, m.payload"
    " FROM herald.message_by_id($1::text::uuid) AS m)"
    " SELECT octet_length(one.envelope)::bigint,"
    " CASE WHEN octet_length(one.envelope) <= $2::int THEN one.envelope END,"
    " one.payload::text, p.bytes, p.checksum, p.content_type, p.compression, p.stored_bytes,"
    " p.chunks"
    " FROM one LEFT JOIN herald.payloads AS p ON p.id = one.payload AND p.state = 'complete'"};

Error error(std::string code, std::string message, std::string hint) {
    Error result;
    result.code = std::move(code);
    result.message = std::move(message);
    result.hint = std::move(hint);
    return result;
}

Error unavailable(std::string message, std::string hint) {
    Error result = error("unavailable", std::move(message), std::move(hint));
    result.retry_ms = kRetryMs;
    return result;
}

Error internal(std::string message) {
    return error("internal", std::move(message), "");
}

Error stopping() {
    return unavailable("the notifier is stopping", "connect again");
}

}  // namespace

Error error_of(const PgFailure& failure) {
    Error result = error("internal", failure.message, failure.hint);
    result.sqlstate = failure.sqlstate;
    const std::string_view state = failure.sqlstate;
    const std::string_view kind = state.substr(0, 2);
    const auto in = [](std::string_view value, std::initializer_list<std::string_view> list) {
        return std::find(list.begin(), list.end(), value) != list.end();
    };
    // 25006: the server is a replica or read-only; 55P03: a lock was not to be had in time.
    if (failure.lost || in(kind, {"08", "40", "53", "57", "58"}) || in(state, {"25006", "55P03"})) {
        result.code = "unavailable";
        result.retry_ms = kRetryMs;
    } else if (in(kind, {"0A", "22", "23", "42", "54", "P0"})) {
        result.code = "rejected";
    }
    return result;
}

Database::Database(uv_loop_t* loop, const PgTarget& target, DatabaseOptions options)
    : loop_(loop), options_(options), timer_(make_timer(loop, this)) {
    PgConnection::Session session;
    session.commands = session_commands(options_.statement_timeout_ms);
    session.statements = {kFeedStatement, kTailStatement, kGap, kSend, kById};
    const auto payloads = payload_statements();
    session.statements.insert(session.statements.end(), payloads.begin(), payloads.end());
    session.command_timeout_ms = options_.statement_timeout_ms + 10'000;
    pool_.reserve(static_cast<std::size_t>(options_.pool_size));
    for (int i = 0; i < options_.pool_size; ++i) {
        PgConnection::Owner& owner = *this;
        pool_.push_back(std::make_unique<PgConnection>(loop, target, session, owner));
    }
}

Database::~Database() = default;

void Database::start() {
    for (const auto& connection : pool_) connection->start();
}

DatabaseStats Database::stats() const {
    DatabaseStats stats;
    for (const auto& connection : pool_) {
        stats.connections += connection->ready() || connection->busy() ? 1 : 0;
        stats.busy += connection->busy() ? 1 : 0;
    }
    stats.waiting = waiting_.size();
    return stats;
}

void Database::read_page(PageRequest request, std::function<void(Result<Page>)> done) {
    PgParameters feed;
    feed.text(request.topics);
    Request work;
    work.repeatable = true;
    if (request.last) {
        feed.int4(*request.last);
    } else {
        feed.int8(request.after);
    }
    feed.int4(request.max_rows).int4(request.max_bytes).int4(options_.max_frame);
    work.calls.push_back(
        {request.last ? kTailStatement.name : kFeedStatement.name, std::move(feed)});
    // The gap is asked for after the rows: what is removed while they are being read is then in
    // the gap. The other way round it would be in neither.
    if (!request.last) {
        work.calls.push_back({kGap.name, PgParameters().text(request.topics).int8(request.after)});
    }
    work.fail = done;
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        Page page;
        std::vector<Lost> none;  // of a topic or pattern the gap tells
        const std::optional<Position> upto = read_log_page(results[0], page.rows, none);
        if (!upto) {
            done(internal("herald.feed() gave no closing row"));
            return;
        }
        page.upto = *upto;
        if (results.size() > 1 && results[1].size() > 0 && !results[1].is_null(0, 0)) {
            page.gap = Gap{.to = results[1].int8(0, 0), .why = results[1].text(0, 1)};
        }
        done(std::move(page));
    };
    submit(std::move(work));
}

void Database::send(std::string message_json, std::function<void(Result<std::string>)> done) {
    Request work;
    work.calls.push_back({kSend.name, PgParameters().text(message_json)});
    work.fail = done;
    work.finish = [done = std::move(done)](std::span<const PgRows> results) {
        if (results[0].size() != 1) {
            done(internal("herald.send_object() gave no id"));
            return;
        }
        done(std::string(results[0].text(0, 0)));
    };
    submit(std::move(work));
}

void Database::message_by_id(std::string id, int max_bytes,
                             std::function<void(Result<std::optional<MessageById>>)> done) {
    Request work;
    work.repeatable = true;
    work.calls.push_back({kById.name, PgParameters().text(id).int4(max_bytes)});
    work.fail = done;
    work.finish = [done = std::move(done), id = std::move(id),
                   max_bytes](std::span<const PgRows> results) {
        const PgRows& rows = results[0];
        if (rows.size() == 0) {
            done(std::optional<MessageById>());
        } else if (rows.is_null(0, 1)) {
            done(error("limit",
                       fmt::format("message {} has {} bytes, the limit is {}", id, rows.int8(0, 0),
                                   max_bytes),
                       "read it with herald.message_by_id() in SQL"));
        } else if (rows.is_null(0, 2)) {
            done(std::optional<MessageById>(
                {.envelope = std::string(rows.text(0, 1)), .payload = {}}));
        } else if (auto payload = payload_of(rows, 0, 2)) {
            done(std::optional<MessageById>(
                {.envelope = std::string(rows.text(0, 1)), .payload = std::move(*payload)}));
        } else {
            done(internal(fmt::format("the payload of message {} is not there", id)));
        }
    };
    submit(std::move(work));
}

void Database::submit(Request request) {
    if (stopping_) {
        fail_later(std::move(request), stopping());
    } else if (waiting_.size() >= options_.max_waiting) {
        fail_later(std::move(request), unavailable("too many requests are waiting for the database",
                                                   "try again later"));
    } else {
        wait(std::move(request), false);
        dispatch();
    }
}

void Database::wait(Request request, bool in_front) {
    request.deadline = uv_now(loop_) + static_cast<std::uint64_t>(options_.wait_ms);
    if (in_front) {
        waiting_.push_front(std::move(request));
    } else {
        waiting_.push_back(std::move(request));
    }
    // A running timer ends before this deadline.
    if (!uv_is_active(reinterpret_cast<uv_handle_t*>(timer_.get()))) arm_timer();
}

void Database::dispatch() {
    for (const auto& connection : pool_) {
        if (waiting_.empty()) return;
        if (!connection->ready()) continue;
        const auto request =
            std::find_if(waiting_.begin(), waiting_.end(), [&](const Request& candidate) {
                return candidate.lost_at == 0 || connection->ready_since() > candidate.lost_at;
            });
        if (request == waiting_.end()) continue;
        Request chosen = std::move(*request);
        waiting_.erase(request);
        run(*connection, std::move(chosen));
    }
}

void Database::run(PgConnection& connection, Request request) {
    // std::function copies what it holds: the request goes in by pointer.
    auto shared = std::make_shared<Request>(std::move(request));
    connection.run(shared->calls,
                   [this, shared](std::span<const PgRows> rows, const PgFailure* failure) {
                       ended(std::move(*shared), rows, failure);
                   });
}

void Database::ended(Request request, std::span<const PgRows> rows, const PgFailure* failure) {
    if (failure == nullptr) {
        request.finish(rows);
    } else if (!failure->lost) {
        request.fail(error_of(*failure));
    } else if (stopping_) {
        request.fail(stopping());
    } else if (request.repeatable && request.lost_at == 0) {
        request.lost_at = uv_now(loop_);
        wait(std::move(request), true);
    } else {
        request.fail(unavailable("the connection to the database broke during the request",
                                 request.repeatable
                                     ? "try again"
                                     : "it may have been stored: send it again with the same "
                                       "idempotency_key, which stores it once"));
    }
    if (stopping_) {
        arm_timer();
    } else {
        dispatch();
    }
}

void Database::connection_ready(PgConnection&) {
    trouble_.passed();
    dispatch();
}

void Database::connection_lost(PgConnection&, const PgFailure& why) {
    trouble_.trouble(why);
}

void Database::fail_later(Request request, Error why) {
    later_.push_back([fail = std::move(request.fail), why = std::move(why)] { fail(why); });
    arm_timer();
}

void Database::expire() {
    const std::uint64_t now = uv_now(loop_);
    const auto expired = std::stable_partition(
        waiting_.begin(), waiting_.end(),
        [&](const Request& request) { return request.deadline > now && !stopping_; });
    for (auto request = expired; request != waiting_.end(); ++request) {
        Error why = stopping_ ? stopping()
                              : unavailable(fmt::format("the database did not take the request "
                                                        "within {} ms",
                                                        options_.wait_ms),
                                            "try again");
        later_.push_back([fail = std::move(request->fail), why = std::move(why)] { fail(why); });
    }
    waiting_.erase(expired, waiting_.end());
}

void Database::on_timer() {
    expire();
    for (const auto& answer : std::exchange(later_, {})) answer();
    if (!stopping_) {
        arm_timer();
        return;
    }
    if (closing_ > 0) return;
    const bool running =
        std::any_of(pool_.begin(), pool_.end(), [](const auto& c) { return c->busy(); });
    if (running && uv_now(loop_) < stop_deadline_) {
        uv_timer_start(timer_.get(), timer_callback, stop_deadline_ - uv_now(loop_), 0);
    } else {
        close_connections();
    }
}

// The timer's next duty: answers that are due, the end of stopping, the earliest deadline.
void Database::arm_timer() {
    if (timer_ == nullptr) return;
    std::uint64_t wait = 0;
    if (later_.empty() && !stopping_) {
        if (waiting_.empty()) {
            uv_timer_stop(timer_.get());
            return;
        }
        const auto first = std::min_element(
            waiting_.begin(), waiting_.end(),
            [](const Request& a, const Request& b) { return a.deadline < b.deadline; });
        wait = first->deadline - std::min(first->deadline, uv_now(loop_));
    }
    uv_timer_start(timer_.get(), timer_callback, wait, 0);
}

void Database::timer_callback(uv_timer_t* timer) {
    static_cast<Database*>(timer->data)->on_timer();
}

void Database::stop(std::function<void()> done) {
    stopping_ = true;
    stopped_ = std::move(done);
    stop_deadline_ = uv_now(loop_) + static_cast<std::uint64_t>(options_.stop_grace_ms);
    arm_timer();
}

void Database::close_connections() {
    closing_ = pool_.size();
    for (const auto& connection : pool_) {
        connection->stop([this] {
            if (--closing_ == 0) closed();
        });
    }
}

void Database::closed() {
    timer_.reset();
    // Asked while the connections were closing.
    for (const auto& answer : std::exchange(later_, {})) answer();
    const auto report = std::move(stopped_);
    report();
}

}  // namespace herald
