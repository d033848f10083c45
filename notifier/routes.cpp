#include "routes.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "assets.h"
#include "clock.h"
#include "core/envelope.h"
#include "core/json_escape.h"
#include "core/topic.h"
#include "core/uuid.h"
#include "download.h"
#include "listener.h"
#include "upload.h"

namespace herald {

namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSubprotocol = "herald.v1";
constexpr std::size_t kMaxIdentity = 200;  // characters
constexpr int kDefaultMax = 100;           // messages of one page of history
constexpr int kMaxMax = 10'000;
constexpr int kPageBytes = 1024 * 1024;
constexpr int kMaxMessageBytes = 16 * 1024 * 1024;
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

Response not_found() {
    return error_response(404, "not_found", "there is nothing at this address");
}

Response not_allowed(std::string allowed) {
    Response response = error_response(405, "invalid", "only " + allowed + " is allowed here");
    response.headers.emplace_back("Allow", std::move(allowed));
    return response;
}

bool is_payload_path(std::string_view path) {
    return path == "/payloads" || path.starts_with("/payloads/");
}

Response json_response(const ordered_json& value) {
    return {.status = 200, .body = value.dump(), .headers = {}};
}

Response text_response(int status, std::string body) {
    return {.status = status,
            .body = std::move(body),
            .type = "text/plain; charset=utf-8",
            .headers = {}};
}

// A whole number from low to high, nothing else.
std::optional<std::int64_t> integer(std::string_view text, std::int64_t low, std::int64_t high) {
    std::int64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = parsed.ec == std::errc{} && parsed.ptr == text.data() + text.size();
    return whole && value >= low && value <= high ? std::optional(value) : std::nullopt;
}

std::optional<std::string_view> between(std::string_view path, std::string_view prefix,
                                        std::string_view suffix) {
    if (path.size() < prefix.size() + suffix.size() || !path.starts_with(prefix) ||
        !path.ends_with(suffix))
        return std::nullopt;
    return path.substr(prefix.size(), path.size() - prefix.size() - suffix.size());
}

ordered_json description(Connection& connection, const Session& session) {
    const Identity& identity = session.identity();
    return {{"id", connection.number()},
            {"user", identity.user},
            {"agent", identity.agent},
            {"workspace", identity.workspace},
            {"remote", connection.remote()},
            {"connected_at", std::string(timestamp_text(connection.connected_at_us()).view())},
            {"subscriptions", session.subscriptions().size()},
            {"sent", connection.messages_sent()},
            {"received", connection.messages_received()},
            {"buffered", connection.buffered()}};
}

std::string history_json(const Page& page) {
    std::string body = "{";
    if (page.gap) {
        body += R"("gap":{"to":)" + std::to_string(page.gap->to) + R"(,"why":)";
        write_json_string(body, page.gap->why);
        body += "},";
    }
    body += R"("messages":[)";
    for (const Row& row : page.rows) {
        if (&row != &page.rows.front()) body += ',';
        body += row.envelope;
    }
    body += R"(],"pos":)" + std::to_string(page.upto) + "}";
    return body;
}

}  // namespace

Routes::Routes(Access access, SessionServices& services, std::size_t transfers,
               std::function<bool()> ready)
    : access_(std::move(access)),
      services_(services),
      transfers_(transfers),
      ready_(std::move(ready)),
      started_us_(unix_microseconds()) {}

void Routes::on_request(Connection& connection, const Request& request) {
    if (const auto refusal = access_.refuse(request)) {
        connection.respond(*refusal);
        return;
    }
    const auto target = parse_target(request.url);
    if (!target) {
        connection.respond(error_response(400, "invalid", "the address is malformed"));
    } else if (is_payload_path(target->path)) {
        payload(connection, request, *target);
    } else if (request.method != Method::kGet && request.method != Method::kHead) {
        connection.respond(not_allowed("GET, HEAD"));
    } else if (request.has_body()) {
        connection.respond(error_response(413, "invalid", "a request body is not accepted here"));
    } else if (target->path == "/ws/connect") {
        connect(connection, request, *target);
    } else if (const auto topic = between(target->path, "/topics/", "/messages")) {
        messages_of(connection, *topic, *target);
    } else if (const auto id = between(target->path, "/messages/", "")) {
        message(connection, *id);
    } else {
        connection.respond(plain(request, target->path));
    }
}

Response Routes::plain(const Request& request, std::string_view path) {
    if (path == "/healthz") return text_response(200, "ok\n");
    if (path == "/readyz")
        return ready_() ? text_response(200, "ready\n") : text_response(503, "not ready\n");
    if (path == "/ws/stats") return stats();
    if (path == "/ws/connections") return connections();
    if (const auto number = between(path, "/ws/connections/", "")) return connection(*number);
    return page(request, path);
}

Response Routes::page(const Request& request, std::string_view path) const {
    for (const Asset& asset : assets()) {
        if (asset.path != path) continue;
        Response response{.status = 200, .body = {}, .type = asset.type, .headers = {}};
        response.headers.emplace_back("Content-Security-Policy", kPolicy);
        response.headers.emplace_back("Referrer-Policy", "no-referrer");
        response.headers.emplace_back("Cache-Control", "no-cache");
        response.headers.emplace_back("ETag", asset.etag);
        if (request.header("if-none-match") == asset.etag) {
            response.status = 304;
        } else {
            response.body = asset.body;
        }
        return response;
    }
    return not_found();
}

void Routes::connect(Connection& connection, const Request& request, const Target& target) {
    Identity identity;
    for (const auto& [name, value] : {std::pair{"user", &identity.user},
                                      {"agent", &identity.agent},
                                      {"workspace", &identity.workspace}}) {
        if (const std::string* given = target.parameter(name)) *value = *given;
        const bool has_nul = value->find('\0') != std::string::npos;  // no text of PostgreSQL
        if (!has_nul && count_characters(*value) <= kMaxIdentity) continue;
        connection.respond(error_response(
            400, "invalid",
            std::string(name) +
                (has_nul ? " has a NUL character" : " is longer than 200 characters")));
        return;
    }
    const Handshake handshake = answer_handshake(request, kSubprotocol);
    if (!handshake.accepted || services_.listener.stopping()) {
        connection.respond(handshake.accepted ? error_response(503, "unavailable", "server stops")
                                              : handshake.response);
        return;
    }
    connection.upgrade(handshake.response,
                       std::make_unique<Session>(connection, services_, std::move(identity)));
}

void Routes::messages_of(Connection& connection, std::string_view topic, const Target& target) {
    const auto refuse = [&](std::string_view why) {
        connection.respond(error_response(400, "invalid", why));
    };
    auto topics = percent_decode(topic, false);
    if (!topics || !check_pattern(*topics).ok())
        return refuse("the topic is not a valid topic or pattern");
    PageRequest page{.topics = std::move(*topics),
                     .after = 0,
                     .last = std::nullopt,
                     .max_rows = kDefaultMax,
                     .max_bytes = kPageBytes};
    if (const std::string* after = target.parameter("after")) {
        const auto value = integer(*after, 0, kMaxPosition);
        if (!value) return refuse("after must be a position: an integer, 0 or more");
        page.after = *value;
    }
    if (const std::string* max = target.parameter("max")) {
        const auto value = integer(*max, 1, kMaxMax);
        if (!value) return refuse("max must be an integer from 1 to 10000");
        page.max_rows = static_cast<int>(*value);
    }
    services_.bus.read_page(std::move(page), [&listener = services_.listener,
                                              number = connection.number()](Result<Page> result) {
        Connection* asking = listener.find(number);
        if (asking == nullptr) return;
        asking->respond(
            result ? Response{.status = 200, .body = history_json(result.value()), .headers = {}}
                   : error_response(result.error()));
    });
}

void Routes::message(Connection& connection, std::string_view id) {
    if (!is_uuid_text(id)) {
        connection.respond(error_response(400, "invalid", "a message's id is a UUID"));
        return;
    }
    services_.bus.message_by_id(
        std::string(id), kMaxMessageBytes,
        [this, number = connection.number()](Result<std::optional<MessageById>> result) {
            Connection* asking = services_.listener.find(number);
            if (asking == nullptr || !asking->answering()) return;
            if (!result) {
                asking->respond(error_response(result.error()));
            } else if (!result.value()) {
                asking->respond(error_response(404, "not_found", "there is no such message"));
            } else if (result.value()->payload) {
                Download::begin(*asking, services_.bus, std::move(*result.value()->payload),
                                transfers_);
            } else {
                asking->respond(
                    {.status = 200, .body = std::move(result.value()->envelope), .headers = {}});
            }
        });
}

void Routes::payload(Connection& connection, const Request& request, const Target& target) {
    const bool is_new = target.path == "/payloads";
    const std::string_view id =
        is_new ? "" : target.path.substr(std::string_view("/payloads/").size());
    const bool is_known_method = is_new ? request.method == Method::kPost
                                        : request.method == Method::kHead ||
                                              request.method == Method::kPatch ||
                                              request.method == Method::kDelete;
    if (!is_known_method) {
        connection.respond(not_allowed(is_new ? "POST" : "HEAD, PATCH, DELETE"));
    } else if (!is_new && !is_uuid_text(id)) {
        connection.respond(error_response(400, "invalid", "a payload's id is a UUID"));
    } else if (request.method == Method::kHead) {
        services_.bus.upload_state(std::string(id),
                                   [&listener = services_.listener, number = connection.number()](
                                       const Result<std::optional<UploadState>>& result) {
                                       if (Connection* asking = listener.find(number))
                                           asking->respond(upload_state_response(result));
                                   });
    } else if (request.method == Method::kDelete) {
        give_up(connection, request, id);
    } else {
        UploadHead head = read_upload_head(request, target);
        if (head.upload) {
            Upload::begin(connection, services_.bus, std::move(*head.upload), std::string(id),
                          transfers_);
        } else {
            connection.respond(head.refusal);
        }
    }
}

void Routes::give_up(Connection& connection, const Request& request, std::string_view upload) {
    if (request.has_body()) {
        connection.respond(error_response(413, "invalid", "a request body is not accepted here"));
        return;
    }
    services_.bus.abort_payload(
        std::string(upload), [&listener = services_.listener,
                              number = connection.number()](const Result<std::monostate>& result) {
            Connection* asking = listener.find(number);
            if (asking == nullptr) return;
            asking->respond(result ? Response{.status = 204, .body = {}, .type = {}, .headers = {}}
                                   : error_response(result.error()));
        });
}

Response Routes::connections() const {
    ordered_json list = ordered_json::array();
    services_.listener.for_each([&](Connection& connection) {
        if (const Session* session = services_.find(connection.number()))
            list.push_back(description(connection, *session));
    });
    return json_response({{"connections", std::move(list)}});
}

Response Routes::connection(std::string_view number) const {
    const auto value = integer(number, 1, INT64_MAX);
    const auto key = static_cast<Connection::Number>(value.value_or(0));
    const Session* session = services_.find(key);
    if (session == nullptr) return error_response(404, "not_found", "there is no such connection");
    ordered_json result = description(*services_.listener.find(key), *session);
    ordered_json topics = ordered_json::array();
    for (const Subscription& subscription : session->subscriptions())
        topics.push_back(subscription.topics);
    result["topics"] = std::move(topics);
    return json_response(result);
}

Response Routes::stats() const {
    const ListenerStats& listener = services_.listener.stats();
    const HubStats& hub = services_.hub.stats();
    const Ring& ring = services_.hub.ring();
    return json_response(
        {{"ready", ready_()},
         {"pos", services_.hub.position()},
         {"uptime_seconds", (unix_microseconds() - started_us_) / 1'000'000},
         {"connections", services_.listener.size()},
         {"websockets", listener.open},
         {"accepted", listener.accepted},
         {"refused", listener.refused},
         {"closed_too_slow", listener.closed_slow},
         {"closed_idle", listener.closed_idle},
         {"closed_faulty", listener.closed_faulty},
         {"subscriptions", hub.subscriptions},
         {"topics", hub.topics},
         {"patterns", hub.patterns},
         {"published", hub.published},
         {"deliveries", hub.deliveries},
         {"sends", services_.sends},
         {"errors", services_.errors},
         {"transfers", transfers_.used()},
         {"ring", {{"messages", ring.size()}, {"bytes", ring.bytes()}, {"floor", ring.floor()}}}});
}

}  // namespace herald
