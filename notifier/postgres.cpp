// The state machine. Every loss, from any state, goes through lose() and waits for the next try.
//
//   stopped
//      | start()
//      v
//   waiting <-- lose() --+-----------+-------------+-------------+---------+
//      | back-off over   |           |             |             |         |
//      v                 |           |             |             |         |
//   resolving -----------+-> connecting -----> setting up -----> ready <-> busy
//   (uv_getaddrinfo)         (PQconnectPoll)   (SET, LISTEN,       run() / sync
//                                               PREPARE)
//
//   stop() leads from every state to stopped.
//
// One timer serves all states: back-off in waiting, connect time-out in connecting and setting up,
// command time-out in busy. The connection is in pipeline mode from setting up on: all calls of a
// command leave together and end with one sync, which is what ends the command.
//
// libpq may close its socket in any call. The poll handle must never be armed on a closed
// descriptor (libuv aborts), so every failing call is followed by poll_.reset() before anything
// else, and PQconnectPoll, which may change the socket behind an equal number, runs with the poll
// stopped.
#include "postgres.h"

#include <netdb.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace herald {
namespace {

// A connection that lived this long has proved itself: the next loss starts a new back-off.
constexpr std::uint64_t kProvenMs = 1000;

// The session's prepared statements no longer fit (a function was replaced, somebody between us
// and the server discarded them): a new session has new ones.
bool is_stale_statement(const PgFailure& failure) {
    return failure.sqlstate == "26000" ||
           (failure.sqlstate == "0A000" && failure.function == "RevalidateCachedQuery");
}

}  // namespace

// One host name on its way through libuv's resolver. Outlives its connection if that stops first.
struct PgConnection::Lookup {
    uv_getaddrinfo_t request{};
    PgConnection* connection = nullptr;
};

PgConnection::PgConnection(uv_loop_t* loop, PgTarget target, Session session, Owner& owner)
    : loop_(loop),
      target_(std::move(target)),
      session_(std::move(session)),
      owner_(owner),
      timer_(make_timer(loop, this)) {}

PgConnection::~PgConnection() = default;

void PgConnection::start() {
    state_ = State::kWaiting;
    start_timer(0);
}

void PgConnection::stop(std::function<void()> done) {
    state_ = State::kStopped;
    poll_.reset();
    connection_.reset();
    results_.clear();
    if (lookup_ != nullptr) {
        lookup_->connection = nullptr;
        uv_cancel(reinterpret_cast<uv_req_t*>(&lookup_->request));  // too late is fine as well
        lookup_ = nullptr;
    }
    if (Done command = std::exchange(done_, nullptr)) {
        const PgFailure why{.message = "the connection was closed", .lost = true};
        command({}, &why);
    }
    uv_timer_t* timer = timer_.release();
    timer->data = new std::function<void()>(std::move(done));
    uv_close(reinterpret_cast<uv_handle_t*>(timer), [](uv_handle_t* closed) {
        const std::unique_ptr<std::function<void()>> report(
            static_cast<std::function<void()>*>(closed->data));
        delete reinterpret_cast<uv_timer_t*>(closed);
        (*report)();
    });
}

void PgConnection::begin_attempt() {
    state_ = State::kResolving;
    resolved_.clear();
    lookup_errors_.clear();
    resolving_ = 0;
    look_up_next();
}

void PgConnection::look_up_next() {
    const auto& hosts = target_.hosts();
    for (; resolving_ < hosts.size(); ++resolving_) {
        const PgTarget::Host& host = hosts[resolving_];
        if (!host.needs_lookup()) {
            resolved_.push_back(host);
            continue;
        }
        auto lookup = std::make_unique<Lookup>();
        lookup->connection = this;
        lookup->request.data = lookup.get();
        addrinfo hints{};
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_STREAM;
        const int status = uv_getaddrinfo(
            loop_, &lookup->request,
            [](uv_getaddrinfo_t* request, int result, addrinfo* addresses) {
                const std::unique_ptr<Lookup> owned(static_cast<Lookup*>(request->data));
                if (owned->connection != nullptr) {
                    owned->connection->looked_up(*owned, result, addresses);
                }
                uv_freeaddrinfo(addresses);
            },
            host.name.c_str(), nullptr, &hints);
        if (status == 0) {
            lookup_ = lookup.release();
            return;
        }
        lookup_errors_ += host.name + ": " + uv_strerror(status) + " ";
    }
    if (resolved_.empty()) {
        lose({.message =
                  "could not look up the database host: " + one_line(lookup_errors_.c_str())});
        return;
    }
    connect();
}

void PgConnection::looked_up(Lookup&, int status, const addrinfo* addresses) {
    lookup_ = nullptr;
    const PgTarget::Host& host = target_.hosts()[resolving_++];
    if (status != 0) lookup_errors_ += host.name + ": " + uv_strerror(status) + " ";
    for (; addresses != nullptr; addresses = addresses->ai_next) {
        char text[NI_MAXHOST];
        if (getnameinfo(addresses->ai_addr, addresses->ai_addrlen, text, sizeof text, nullptr, 0,
                        NI_NUMERICHOST) == 0) {
            resolved_.push_back({.name = host.name, .address = text, .port = host.port});
        }
    }
    look_up_next();
}

void PgConnection::connect() {
    state_ = State::kConnecting;
    std::rotate(resolved_.begin(),
                resolved_.begin() + static_cast<std::ptrdiff_t>(first_host_ % resolved_.size()),
                resolved_.end());
    const auto parameters = target_.parameters(resolved_);
    std::vector<const char*> keywords;
    std::vector<const char*> values;
    for (const auto& [keyword, value] : parameters) {
        keywords.push_back(keyword.c_str());
        values.push_back(value.c_str());
    }
    keywords.push_back(nullptr);
    values.push_back(nullptr);
    connection_.reset(PQconnectStartParams(keywords.data(), values.data(), 0));
    if (connection_ == nullptr) {
        lose({.message = "out of memory for a database connection"});
        return;
    }
    if (PQstatus(connection_.get()) == CONNECTION_BAD) {
        lose(connection_failure("cannot connect"));
        return;
    }
    PQsetNoticeReceiver(connection_.get(), hear_notice, this);
    start_timer(target_.connect_timeout_ms());
    // libpq's rule: before the first PQconnectPoll, behave as if it had asked for writing.
    if (!watch(UV_WRITABLE)) lose({.message = "cannot watch the database's socket"});
}

void PgConnection::continue_connecting() {
    if (poll_) uv_poll_stop(poll_.get());
    poll_events_ = 0;
    const PostgresPollingStatusType wants = PQconnectPoll(connection_.get());
    if (wants == PGRES_POLLING_OK) {
        set_up();
    } else if (wants == PGRES_POLLING_FAILED) {
        lose(connection_failure("cannot connect"));
    } else if (!watch(wants == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE)) {
        lose({.message = "cannot watch the database's socket"});
    }
}

void PgConnection::set_up() {
    state_ = State::kSettingUp;
    PGconn* connection = connection_.get();
    bool sent = PQsetnonblocking(connection, 1) == 0 && PQenterPipelineMode(connection) == 1;
    for (const std::string& command : session_.commands) {
        sent = sent && PQsendQueryParams(connection, command.c_str(), 0, nullptr, nullptr, nullptr,
                                         nullptr, 1) == 1;
    }
    for (const PgStatement& statement : session_.statements) {
        sent = sent && PQsendPrepare(connection, statement.name, statement.sql, 0, nullptr) == 1;
    }
    finish_sending(sent);
}

void PgConnection::became_ready() {
    state_ = State::kReady;
    uv_timer_stop(timer_.get());
    ready_since_ = uv_now(loop_);
    owner_.connection_ready(*this);
}

void PgConnection::run(std::span<const PgCall> calls, Done done) {
    state_ = State::kBusy;
    done_ = std::move(done);
    start_timer(session_.command_timeout_ms);
    finish_sending(std::all_of(calls.begin(), calls.end(),
                               [this](const PgCall& call) { return send_call(call); }));
}

bool PgConnection::send_call(const PgCall& call) {
    const auto& parameters = call.parameters.values();
    std::vector<const char*> values;
    std::vector<int> lengths;
    for (const auto& parameter : parameters) {
        values.push_back(parameter ? parameter->data() : nullptr);
        lengths.push_back(parameter ? static_cast<int>(parameter->size()) : 0);
    }
    const std::vector<int> formats(parameters.size(), 1);
    return PQsendQueryPrepared(connection_.get(), call.statement,
                               static_cast<int>(parameters.size()), values.data(), lengths.data(),
                               formats.data(), 1) == 1;
}

void PgConnection::finish_sending(bool sent) {
    failure_.reset();
    results_.clear();
    if (sent && PQpipelineSync(connection_.get()) == 1 && flush()) return;
    // The caller must not be called back from inside its own call: the timer tells it.
    poll_.reset();
    failed_in_send_ = true;
    start_timer(0);
}

void PgConnection::hear_notice(void* connection, const PGresult* notice) {
    PgFailure words = failure_of(notice);
    const char* severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    const bool warning = severity != nullptr && std::string_view(severity) == "WARNING";
    // 57P: the server ends the session; an immediate shutdown says so in a mere warning.
    if (words.sqlstate.starts_with("57P")) {
        static_cast<PgConnection*>(connection)->last_words_ = std::move(words);
    } else {
        spdlog::log(warning ? spdlog::level::warn : spdlog::level::debug, "postgres: {}",
                    words.message);
    }
}

// Sends what is waiting; false if the connection is broken.
bool PgConnection::flush() {
    const int left = PQflush(connection_.get());
    if (left < 0 || PQstatus(connection_.get()) == CONNECTION_BAD) return false;
    return watch(left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

void PgConnection::on_poll(int events) {
    if (state_ == State::kConnecting) {
        continue_connecting();
        return;
    }
    PGconn* connection = connection_.get();
    bool alive = true;
    if ((events & ~UV_WRITABLE) != 0) alive = PQconsumeInput(connection) == 1;
    // Writing may have read as well (libpq does, to avoid a deadlock), so results are looked for
    // after both, and also after a loss: an answer that came before it counts.
    if (alive && poll_events_ != UV_READABLE) alive = flush();
    if (!alive || PQstatus(connection) == CONNECTION_BAD) poll_.reset();
    take_results();
    if (connection_.get() != connection || failed_in_send_) return;
    drain_notifications();
    if (connection_.get() != connection || failed_in_send_) return;
    if (!alive || PQstatus(connection) == CONNECTION_BAD)
        lose(connection_failure("connection lost"));
}

void PgConnection::take_results() {
    PGconn* connection = connection_.get();
    bool between_calls = false;
    while (connection_.get() == connection && !failed_in_send_ &&
           (state_ == State::kBusy || state_ == State::kSettingUp) && PQisBusy(connection) == 0) {
        OwnedResult result(PQgetResult(connection));
        if (result == nullptr) {
            // One NULL ends each call; a second in a row means libpq has nothing more to give.
            if (std::exchange(between_calls, true)) return;
            continue;
        }
        between_calls = false;
        switch (PQresultStatus(result.get())) {
            case PGRES_PIPELINE_SYNC:
                command_ended();
                break;
            case PGRES_COMMAND_OK:
            case PGRES_TUPLES_OK:
                results_.push_back(std::move(result));
                break;
            case PGRES_PIPELINE_ABORTED:
                break;  // an earlier call's failure has been kept
            default:
                if (!failure_) failure_ = failure_of(result.get());
        }
    }
}

void PgConnection::command_ended() {
    std::vector<OwnedResult> results = std::exchange(results_, {});
    const std::optional<PgFailure> failure = std::exchange(failure_, std::nullopt);
    if (state_ == State::kSettingUp) {
        if (failure) {
            lose(*failure);
        } else {
            became_ready();
        }
        return;
    }
    if (failure && is_stale_statement(*failure)) {
        lose(*failure);
        return;
    }
    state_ = State::kReady;
    uv_timer_stop(timer_.get());
    const Done done = std::exchange(done_, nullptr);
    if (failure) {
        done({}, &*failure);
        return;
    }
    std::vector<PgRows> rows;
    rows.reserve(results.size());
    for (OwnedResult& result : results)
        rows.emplace_back(std::shared_ptr<const PGresult>(std::move(result)));
    done(rows, nullptr);
}

void PgConnection::drain_notifications() {
    struct FreeNotify {
        void operator()(PGnotify* notify) const { PQfreemem(notify); }
    };
    PGconn* connection = connection_.get();
    while (connection_.get() == connection) {
        const std::unique_ptr<PGnotify, FreeNotify> heard(PQnotifies(connection));
        if (heard == nullptr) return;
        owner_.notification(*this, heard->relname, heard->extra);
    }
}

void PgConnection::lose(PgFailure why) {
    const bool was_up = state_ == State::kReady || state_ == State::kBusy;
    if (was_up && uv_now(loop_) - ready_since_ >= kProvenMs) backoff_.reset();
    poll_.reset();
    connection_.reset();
    results_.clear();
    failure_.reset();
    last_words_ = {};
    failed_in_send_ = false;
    state_ = State::kWaiting;
    start_timer(backoff_.next());
    why.lost = true;
    if (const Done done = std::exchange(done_, nullptr)) done({}, &why);
    if (state_ != State::kStopped) owner_.connection_lost(*this, why);
}

// `what` and libpq's or the server's last words.
PgFailure PgConnection::connection_failure(const char* what) const {
    if (failure_) return *failure_;
    if (!last_words_.message.empty()) return last_words_;
    const std::string words = one_line(PQerrorMessage(connection_.get()));
    return {.message = words.empty() ? what : std::string(what) + ": " + words};
}

void PgConnection::on_timer() {
    switch (state_) {
        case State::kWaiting:
            begin_attempt();
            return;
        case State::kConnecting:
        case State::kSettingUp:
        case State::kBusy:
            if (failed_in_send_) {
                lose(connection_failure("connection lost"));
                return;
            }
            if (state_ == State::kConnecting) ++first_host_;
            lose({.message = state_ == State::kBusy ? "the database did not answer in time"
                                                    : "connecting to the database timed out"});
            return;
        case State::kStopped:
        case State::kResolving:
        case State::kReady:
            return;
    }
}

// Polls libpq's current socket for `events`; false if that is not possible.
bool PgConnection::watch(int events) {
    const int socket = PQsocket(connection_.get());
    if (poll_ == nullptr || poll_fd_ != socket) {
        poll_.reset();
        poll_events_ = 0;
        auto poll = std::make_unique<uv_poll_t>();
        if (socket < 0 || uv_poll_init_socket(loop_, poll.get(), socket) != 0) return false;
        poll->data = this;
        poll_.reset(poll.release());
        poll_fd_ = socket;
    }
    if (poll_events_ == events) return true;
    poll_events_ = events;
    return uv_poll_start(poll_.get(), events, poll_callback) == 0;
}

void PgConnection::poll_callback(uv_poll_t* poll, int status, int ready) {
    auto* self = static_cast<PgConnection*>(poll->data);
    if (status < 0) {
        // libuv has stopped the poll because the socket has an error; libpq finds out which by
        // reading, perhaps only after it has read what came before the error.
        self->poll_events_ = 0;
        ready = UV_READABLE;
    }
    self->on_poll(ready);
}

void PgConnection::start_timer(std::int64_t milliseconds) {
    uv_timer_start(
        timer_.get(),
        [](uv_timer_t* timer) { static_cast<PgConnection*>(timer->data)->on_timer(); },
        static_cast<std::uint64_t>(milliseconds), 0);
}

}  // namespace herald
