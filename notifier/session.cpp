#include "session.h"

#include <algorithm>
#include <utility>

#include "close_code.h"
#include "core/topic.h"
#include "listener.h"
#include "replay.h"

namespace herald {

namespace {

constexpr int kRetryMs = 500;
// Clients that are sent away together come back spread over this time.
constexpr int kSpreadMs = 5000;

Error field_error(const char* code, std::string message) {
    return {
        .code = code, .message = std::move(message), .hint = {}, .sqlstate = {}, .field = "topic"};
}

}  // namespace

Session* SessionServices::find(Connection::Number number) const {
    const Connection* connection = listener.find(number);
    // Every WebSocket of this listener is a session.
    return connection == nullptr ? nullptr : static_cast<Session*>(connection->handler());
}

Session::Session(Connection& connection, SessionServices& services, Identity identity)
    : connection_(connection), services_(services), identity_(std::move(identity)) {}

Session::~Session() = default;

void Session::on_text(std::string_view text) {
    const std::string& sender = identity_.agent.empty() ? identity_.user : identity_.agent;
    auto parsed = parse_client_frame(text, sender);
    if (const auto* refusal = std::get_if<Refusal>(&parsed)) {
        refuse(refusal->id, refusal->error);
        return;
    }
    auto& frame = std::get<ClientFrame>(parsed);
    if (auto* sub = std::get_if<SubRequest>(&frame.request)) {
        subscribe(frame.id, std::move(*sub));
    } else if (const auto* unsub = std::get_if<UnsubRequest>(&frame.request)) {
        unsubscribe(frame.id, *unsub);
    } else {
        send(std::move(frame.id), std::move(std::get<SendRequest>(frame.request)));
    }
}

void Session::on_binary(std::string_view) {
    connection_.close(kCloseUnsupported, "only text messages are understood");
}

void Session::refuse(std::string_view id, const Error& error) {
    ++services_.errors;
    send_text(err_frame(id, error));
}

void Session::hear(Position, const Frame& frame) {
    connection_.send_message(frame);
}

void Session::miss(std::string_view topics, Position from, Position to, std::string_view why) {
    send_text(gap_frame(topics, from, to, why));
}

void Session::on_drained() {
    if (!replay_) return;
    replay_->advance();
    release_replay();
}

void Session::on_closed() {
    for (const Subscription& subscription : subscriptions_)
        if (subscription.live) services_.hub.unsubscribe(*this, subscription.topics);
    subscriptions_.clear();
    replay_.reset();
    sends_.reset();
}

Frame Session::farewell(std::uint16_t code, std::string_view why) {
    if (!says_bye(code)) return {};
    std::uniform_int_distribution<int> wait(0, kSpreadMs);
    return Frame::text(bye_frame(code, true, wait(services_.random), why));
}

// Subscriptions

Subscription* Session::find_subscription(std::string_view topics) {
    const auto found = std::find_if(subscriptions_.begin(), subscriptions_.end(),
                                    [&](const Subscription& s) { return s.topics == topics; });
    return found == subscriptions_.end() ? nullptr : &*found;
}

void Session::subscribe(const std::string& id, SubRequest request) {
    const Hub& hub = services_.hub;
    if (!hub.started()) {
        Error error = field_error("unavailable", "the database has not been reached yet");
        error.field.clear();
        error.retry_ms = kRetryMs;
        refuse(id, error);
        return;
    }
    if (find_subscription(request.topic) != nullptr) {
        Error error = field_error("invalid", "topic " + request.topic + " is subscribed already");
        error.hint = "Unsubscribe first.";
        refuse(id, error);
        return;
    }
    if (subscriptions_.size() >= services_.max_subscriptions) {
        refuse(id, field_error("limit", "a connection can have " +
                                            std::to_string(services_.max_subscriptions) +
                                            " subscriptions"));
        return;
    }
    subscriptions_.push_back({.topics = request.topic, .start = request.after.value_or(0)});
    if (!request.after && !request.last) {
        subscriptions_.back().start = hub.position();
        go_live(request.topic, hub.position(), id);
        return;
    }
    if (!replay_) replay_ = std::make_unique<Replay>(*this);
    replay_->add(id, std::move(request));
    replay_->advance();
    release_replay();
}

void Session::page_came(std::uint64_t job, const Result<Page>& page) {
    replay_->got(job, page);
    release_replay();
}

void Session::release_replay() {
    if (replay_ && replay_->done()) replay_.reset();
}

void Session::go_live(std::string_view topics, Position cursor, std::string_view id) {
    find_subscription(topics)->live = true;
    services_.hub.subscribe(*this, topics, cursor);
    send_text(ok_sub_frame(id, topics, cursor));
}

void Session::unsubscribe(const std::string& id, const UnsubRequest& request) {
    const Subscription* subscription = find_subscription(request.topic);
    if (subscription == nullptr) {
        refuse(id, field_error("invalid", "topic " + request.topic + " is not subscribed"));
        return;
    }
    if (subscription->live) {
        services_.hub.unsubscribe(*this, request.topic);
    } else {
        replay_->cancel(request.topic);
        release_replay();
    }
    drop_subscription(request.topic);
    send_text(ok_unsub_frame(id, request.topic));
}

void Session::drop_subscription(std::string_view topics) {
    std::erase_if(subscriptions_, [&](const Subscription& s) { return s.topics == topics; });
}

// A live subscription S has brought everything in (S.start, the feed's position] that it matches:
// up to its hand-over by its replay (or because yet another live subscription had), since then
// from the hub. What lies above the feed's position the hub will bring, once. So a replay may leave
// out exactly what a live S matches above S.start. A subscription that is not live covers nothing:
// replays run one at a time, so it has brought nothing yet.
bool Session::covered_by_other(std::string_view topics, Position pos,
                               std::string_view topic) const {
    return std::any_of(subscriptions_.begin(), subscriptions_.end(), [&](const Subscription& s) {
        return s.live && s.start < pos && s.topics != topics && topic_matches(s.topics, topic);
    });
}

// Sending

void Session::send(std::string id, SendRequest request) {
    WaitingSend next{std::move(id), std::move(request.message)};
    if (!sends_) {
        sends_ = std::make_unique<Sends>();
        give_to_database(std::move(next));
        return;
    }
    sends_->bytes += next.message.size();
    sends_->waiting.push_back(std::move(next));
    if (sends_->waiting.size() >= kMaxWaitingSends || sends_->bytes >= kMaxWaitingBytes)
        connection_.pause_reading(true);
}

void Session::give_to_database(WaitingSend next) {
    sends_->id = std::move(next.id);
    services_.bus.send(
        std::move(next.message),
        [&services = services_, number = connection_.number()](Result<std::string> result) {
            if (Session* session = services.find(number)) session->stored(std::move(result));
        });
}

void Session::stored(Result<std::string> result) {
    if (result) {
        ++services_.sends;
        send_text(ok_send_frame(sends_->id, result.value()));
    } else {
        refuse(sends_->id, result.error());
    }
    if (sends_->waiting.empty()) {
        sends_.reset();
    } else {
        WaitingSend next = std::move(sends_->waiting.front());
        sends_->waiting.pop_front();
        sends_->bytes -= next.message.size();
        give_to_database(std::move(next));
    }
    if (!sends_ || sends_->waiting.empty()) connection_.pause_reading(false);
}

}  // namespace herald
