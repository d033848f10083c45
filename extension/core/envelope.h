// The envelope: the one JSON form of a message, byte for byte the same in SQL, as a LISTEN
// payload, a WebSocket frame and an HTTP response. Written here and nowhere else.
//
//   {"pos":…,"id":…,"topic":…,"type":…,"sender":…,"recipient":…,"conversation":…,"at":…,
//    "content":…,"metadata":…,"reply_to":…,"priority":…,"key":…,"expires_at":…}
//
// Members that are NULL, and priority 0, are absent. A message too long for its carrier carries
// "ref":{"bytes":…,"checksum":"sha256:…","href":"/messages/<id>"} instead of its content (the
// claim check); if that is still too long, its metadata is left to the href as well. One whose
// content is a payload carries a "ref" in any case, with "content_type" as well.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "json_escape.h"
#include "uuid.h"

namespace herald {

// A message as views into memory that somebody else owns. Trivially destructible, so that it may
// live in functions that PostgreSQL leaves by longjmp.
struct MessageView {
    std::int64_t pos = 0;
    UuidBytes id{};
    std::string_view topic;
    std::int64_t at_us = 0;  // Unix microseconds
    std::string_view message_type;
    std::optional<std::string_view> sender;
    std::optional<std::string_view> recipient;
    std::optional<std::string_view> conversation;
    std::string_view content;
    bool content_is_json = false;              // else content is plain text
    bool content_is_reference = false;         // it is the JSON of "ref", the content a payload
    std::optional<std::string_view> metadata;  // JSON text
    std::optional<UuidBytes> reply_to;
    int priority = 0;
    std::optional<std::string_view> ordering_key;
    std::optional<std::int64_t> expires_us;  // Unix microseconds
};

enum class EnvelopeForm : std::uint8_t { kFull, kReference, kBareReference };

// 2026-11-21T02:40:00.123456Z, years 0001 to 9999 and beyond (then more digits); no terminating
// zero. Civil date from day number: Hinnant, "chrono-Compatible Low-Level Date Algorithms".
struct TimestampText {
    std::array<char, 40> text{};
    std::size_t length = 0;

    std::string_view view() const { return {text.data(), length}; }
};
TimestampText timestamp_text(std::int64_t unix_us);

struct IntegerText {
    std::array<char, 24> text{};
    std::size_t length = 0;

    std::string_view view() const { return {text.data(), length}; }
};
IntegerText integer_text(std::int64_t value);

// Appends the envelope to the sink (see write_json_string). `checksum` is the lower-case hex
// SHA-256 of the content's bytes; used by the reference forms only.
template <typename Sink>
void write_envelope(Sink& sink, const MessageView& message, EnvelopeForm form,
                    std::string_view checksum = {}) {
    using namespace std::string_view_literals;
    const auto write_uuid = [&](std::string_view name, const UuidBytes& value) {
        const auto written = uuid_text(value);
        sink.append(name);
        sink.append(std::string_view(written.data(), written.size()));
    };
    const auto write_text = [&](std::string_view name,
                                const std::optional<std::string_view>& value) {
        if (!value) return;
        sink.append(name);
        write_json_string(sink, *value);
    };

    sink.append("{\"pos\":"sv);
    sink.append(integer_text(message.pos).view());
    write_uuid(",\"id\":\""sv, message.id);
    write_text("\",\"topic\":"sv, message.topic);
    write_text(",\"type\":"sv, message.message_type);
    write_text(",\"sender\":"sv, message.sender);
    write_text(",\"recipient\":"sv, message.recipient);
    write_text(",\"conversation\":"sv, message.conversation);
    sink.append(",\"at\":\""sv);
    sink.append(timestamp_text(message.at_us).view());
    if (message.content_is_reference) {
        sink.append("\",\"ref\":"sv);
        sink.append(message.content);
    } else if (form == EnvelopeForm::kFull) {
        sink.append("\",\"content\":"sv);
        if (message.content_is_json) {
            sink.append(message.content);
        } else {
            write_json_string(sink, message.content);
        }
    } else {
        sink.append("\",\"ref\":{\"bytes\":"sv);
        sink.append(integer_text(static_cast<std::int64_t>(message.content.size())).view());
        sink.append(",\"checksum\":\"sha256:"sv);
        sink.append(checksum);
        write_uuid("\",\"href\":\"/messages/"sv, message.id);
        sink.append("\"}"sv);
    }
    if (message.metadata && form != EnvelopeForm::kBareReference) {
        sink.append(",\"metadata\":"sv);
        sink.append(*message.metadata);
    }
    if (message.reply_to) {
        write_uuid(",\"reply_to\":\""sv, *message.reply_to);
        sink.append("\""sv);
    }
    if (message.priority != 0) {
        sink.append(",\"priority\":"sv);
        sink.append(integer_text(message.priority).view());
    }
    write_text(",\"key\":"sv, message.ordering_key);
    if (message.expires_us) {
        sink.append(",\"expires_at\":\""sv);
        sink.append(timestamp_text(*message.expires_us).view());
        sink.append("\""sv);
    }
    sink.append("}"sv);
}

}  // namespace herald
