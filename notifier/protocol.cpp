#include "protocol.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/json_escape.h"
#include "core/topic.h"
#include "utf8.h"

namespace herald {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxId = 200;     // bytes of JSON text
constexpr std::size_t kMaxQuoted = 50;  // bytes of a client's text in an error

Error invalid(std::string message, std::string field = {}) {
    return {.code = "invalid",
            .message = std::move(message),
            .hint = {},
            .sqlstate = {},
            .field = std::move(field)};
}

// Position just after the string that begins at text[at]; text.size() if it does not end.
std::size_t after_string(std::string_view text, std::size_t at) {
    for (++at; at < text.size(); ++at) {
        if (text[at] == '\\') {
            ++at;
        } else if (text[at] == '"') {
            return at + 1;
        }
    }
    return text.size();
}

bool nests_too_deep(std::string_view text) {
    int depth = 0;
    for (std::size_t at = 0; at < text.size();) {
        const char c = text[at];
        if (c == '"') {
            at = after_string(text, at);
            continue;
        }
        if ((c == '{' || c == '[') && ++depth > kMaxNesting) return true;
        if (c == '}' || c == ']') --depth;
        ++at;
    }
    return false;
}

// A member of the frame's object, as the client wrote it.
struct Member {
    std::string key;          // decoded
    std::string_view source;  // "key": value
    std::string_view value;   // JSON text
};

std::size_t skip_space(std::string_view text, std::size_t at) {
    while (at < text.size() && std::string_view(" \t\r\n").find(text[at]) != std::string_view::npos)
        ++at;
    return at;
}

// Position just after the value that begins at text[at]. Precondition: valid JSON.
std::size_t after_value(std::string_view text, std::size_t at) {
    int depth = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '"') {
            at = after_string(text, at);
            if (depth == 0) return at;
            continue;
        }
        if (c == '{' || c == '[') ++depth;
        if (c == '}' || c == ']') {
            if (depth == 0) return at;  // a number or word that ends with its container
            if (--depth == 0) return at + 1;
        }
        if (depth == 0 && (c == ',' || skip_space(text, at) > at)) return at;
        ++at;
    }
    return at;
}

// The object's own members. They are taken from the text rather than from a parsed tree, so that
// what is passed on keeps every digit of its numbers. Precondition: valid JSON, an object.
std::vector<Member> members_of(std::string_view text) {
    std::vector<Member> members;
    std::size_t at = skip_space(text, skip_space(text, 0) + 1);
    while (text[at] == '"') {
        const std::size_t begin = at;
        at = after_string(text, at);
        const std::string_view key = text.substr(begin, at - begin);
        at = skip_space(text, skip_space(text, at) + 1);  // over the colon
        const std::size_t value = at;
        at = after_value(text, at);
        Member member{std::string(key.substr(1, key.size() - 2)), text.substr(begin, at - begin),
                      text.substr(value, at - value)};
        if (member.key.find('\\') != std::string::npos) member.key = json::parse(key);
        members.push_back(std::move(member));
        at = skip_space(text, at);
        if (text[at] == ',') at = skip_space(text, at + 1);
    }
    return members;
}

// The frame's members with typed access; the first fault found is kept. Of a repeated key the
// last counts, as in PostgreSQL's jsonb.
class Members {
  public:
    explicit Members(std::vector<Member> members) : members_(std::move(members)) {}

    const std::vector<Member>& all() const { return members_; }
    const std::optional<Error>& fault() const { return fault_; }
    void fail(Error error) {
        if (!fault_) fault_ = std::move(error);
    }
    bool has(std::string_view key) const { return find(key) != nullptr; }

    // Null counts as absent for optional members.
    std::optional<std::string> text(const char* key, bool required) {
        const Member* member = find(key);
        if (member == nullptr || (!required && member->value == "null")) {
            if (required) fail(invalid(std::string(key) + " is missing", key));
            return std::nullopt;
        }
        if (member->value.front() != '"') {
            fail(invalid(std::string(key) + " must be a string", key));
            return std::nullopt;
        }
        return json::parse(member->value).get<std::string>();
    }
    std::optional<std::int64_t> integer(const char* key, std::int64_t low, std::int64_t high) {
        const Member* member = find(key);
        if (member == nullptr || member->value == "null") return std::nullopt;
        const json value = json::parse(member->value);
        const bool fits = value.is_number_integer() &&
                          (!value.is_number_unsigned() ||
                           value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high)) &&
                          value.get<std::int64_t>() >= low && value.get<std::int64_t>() <= high;
        if (fits) return value.get<std::int64_t>();
        fail(invalid(std::string(key) + " must be an integer from " + std::to_string(low) + " to " +
                         std::to_string(high),
                     key));
        return std::nullopt;
    }
    void object_or_null(const char* key) {
        const Member* member = find(key);
        if (member == nullptr || member->value.front() == '{' || member->value == "null") return;
        fail(invalid(std::string(key) + " must be an object", key));
    }
    std::string_view raw(std::string_view key) const {
        const Member* member = find(key);
        return member == nullptr ? std::string_view{} : member->value;
    }

  private:
    const Member* find(std::string_view key) const {
        const auto found = std::find_if(members_.rbegin(), members_.rend(),
                                        [&](const Member& member) { return member.key == key; });
        return found == members_.rend() ? nullptr : &*found;
    }

    std::vector<Member> members_;
    std::optional<Error> fault_;
};

std::string topic_fault(std::string_view topic, const TopicCheck& check) {
    switch (check.fault) {
        case TopicFault::kEmpty:
            return "topic must not be empty";
        case TopicFault::kTooLong:
            return "topic is longer than " + std::to_string(kMaxTopicCharacters) + " characters";
        case TopicFault::kCharacter: {
            const auto byte = static_cast<unsigned char>(topic[check.at]);
            if (byte < 0x20 || byte == 0x7F) return "topic must not have control characters";
            return std::string("pattern character ") + topic[check.at] + " is not known";
        }
        case TopicFault::kReserved:
            return "topic is reserved";
        case TopicFault::kNone:
            break;
    }
    return {};
}

std::string topic_of(Members& members) {
    std::string topic = members.text("topic", true).value_or("");
    if (members.fault()) return topic;
    if (const TopicCheck check = check_pattern(topic); !check.ok())
        members.fail(invalid(topic_fault(topic, check), "topic"));
    return topic;
}

void refuse_others(Members& members, std::initializer_list<std::string_view> known) {
    for (const Member& member : members.all()) {
        if (std::find(known.begin(), known.end(), member.key) != known.end()) continue;
        const std::string key(cut_utf8(member.key, kMaxQuoted));
        members.fail(invalid("field " + key + " is not known here", key));
    }
}

SubRequest parse_sub(Members& members) {
    SubRequest request;
    request.topic = topic_of(members);
    request.after = members.integer("after", 0, kMaxPosition);
    if (const auto last = members.integer("last", 1, kMaxLast))
        request.last = static_cast<int>(*last);
    if (request.after && request.last)
        members.fail(invalid("last cannot be used together with after", "last"));
    refuse_others(members, {"op", "id", "topic", "after", "last"});
    return request;
}

UnsubRequest parse_unsub(Members& members) {
    UnsubRequest request{topic_of(members)};
    refuse_others(members, {"op", "id", "topic"});
    return request;
}

SendRequest parse_send(Members& members, std::string_view sender) {
    const bool payload = members.has("payload");
    const bool stored = members.has("payload_id");
    for (const char* key :
         {"sender", "recipient", "message_type", "conversation", "workspace", "reply_to",
          "ordering_key", "deliver_at", "ttl", "idempotency_key", "payload_id"})
        members.text(key, false);
    members.text("topic", payload);
    if (payload && members.has("content"))
        members.fail(invalid("payload cannot be used together with content", "payload"));
    if (stored && (payload || members.has("content")))
        members.fail(
            invalid("payload_id cannot be used together with content or payload", "payload_id"));
    if (!payload && !stored) members.text("content", true);
    members.object_or_null("metadata");
    members.integer("priority", INT32_MIN, INT32_MAX);  // the database knows the range

    SendRequest request{"{"};
    const auto separate = [&] {
        if (request.message.size() > 1) request.message += ',';
    };
    for (const Member& member : members.all()) {
        if (member.key == "op" || member.key == "id") continue;
        separate();
        request.message += member.source;
    }
    if (!members.has("sender") && !sender.empty()) {
        separate();
        request.message += R"("sender":)";
        write_json_string(request.message, sender);
    }
    request.message += '}';
    return request;
}

// The id to echo, or empty after noting the fault.
std::string id_of(Members& members) {
    const std::string_view raw = members.raw("id");
    if (raw.empty() || raw == "null") return {};
    const bool integer = raw.find_first_not_of("-0123456789") == std::string_view::npos;
    if (raw.front() != '"' && !integer) {
        members.fail(invalid("id must be a string or an integer", "id"));
        return {};
    }
    if (raw.size() > kMaxId) {
        members.fail(invalid("id is longer than 200 bytes", "id"));
        return {};
    }
    return std::string(raw);
}

// Builds one flat JSON object.
class ObjectText {
  public:
    explicit ObjectText(std::string_view op) {
        text_ = R"({"op":")";
        text_.append(op).append("\"");
    }
    ObjectText& raw(std::string_view key, std::string_view value) {
        text_.append(",\"").append(key).append("\":").append(value);
        return *this;
    }
    ObjectText& id(std::string_view value) { return value.empty() ? *this : raw("id", value); }
    ObjectText& number(std::string_view key, std::int64_t value) {
        return raw(key, std::to_string(value));
    }
    ObjectText& text(std::string_view key, std::string_view value) {
        raw(key, "");
        write_json_string(text_, value);
        return *this;
    }
    ObjectText& text_unless_empty(std::string_view key, std::string_view value) {
        return value.empty() ? *this : text(key, value);
    }
    std::string done() {
        text_ += '}';
        return std::move(text_);
    }

  private:
    std::string text_;
};

}  // namespace

std::variant<ClientFrame, Refusal> parse_client_frame(std::string_view text,
                                                      std::string_view sender) {
    if (nests_too_deep(text))
        return Refusal{{}, invalid("JSON nests deeper than " + std::to_string(kMaxNesting))};
    // The JSON parser would take a NUL for the end of the text.
    if (text.find('\0') != std::string_view::npos || !json::accept(text))
        return Refusal{{}, invalid("not valid JSON")};
    if (text[skip_space(text, 0)] != '{')
        return Refusal{{}, invalid("a frame must be a JSON object")};

    Members members(members_of(text));
    ClientFrame frame{id_of(members), {}};
    const std::string op = members.text("op", true).value_or("");
    if (members.fault()) return Refusal{frame.id, *members.fault()};
    if (op == "sub") {
        frame.request = parse_sub(members);
    } else if (op == "unsub") {
        frame.request = parse_unsub(members);
    } else if (op == "send") {
        frame.request = parse_send(members, sender);
    } else {
        Error error =
            invalid("op " + std::string(cut_utf8(op, kMaxQuoted)) + " is not known", "op");
        error.code = "unknown_op";
        error.hint = "Known are sub, unsub and send.";
        return Refusal{frame.id, std::move(error)};
    }
    if (members.fault()) return Refusal{frame.id, *members.fault()};
    return frame;
}

std::string ok_sub_frame(std::string_view id, std::string_view topic, Position pos) {
    return ObjectText("ok").id(id).text("topic", topic).number("pos", pos).done();
}

std::string ok_unsub_frame(std::string_view id, std::string_view topic) {
    return ObjectText("ok").id(id).text("topic", topic).done();
}

std::string ok_send_frame(std::string_view id, std::string_view message) {
    return ObjectText("ok").id(id).text("message", message).done();
}

std::string err_frame(std::string_view id, const Error& error) {
    ObjectText frame("err");
    frame.id(id).text("code", error.code).text("message", error.message);
    frame.text_unless_empty("field", error.field).text_unless_empty("sqlstate", error.sqlstate);
    frame.text_unless_empty("hint", error.hint);
    if (error.retry_ms > 0) frame.number("retry_ms", error.retry_ms);
    return frame.done();
}

std::string gap_frame(std::string_view topic, Position from, Position to, std::string_view why) {
    return ObjectText("gap")
        .text("topic", topic)
        .number("from", from)
        .number("to", to)
        .text("why", why)
        .done();
}

std::string bye_frame(int code, bool reconnect, int after_ms, std::string_view why) {
    return ObjectText("bye")
        .number("code", code)
        .raw("reconnect", reconnect ? "true" : "false")
        .number("after_ms", after_ms)
        .text("why", why)
        .done();
}

}  // namespace herald
