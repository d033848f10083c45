// Protocol: the JSON frames that clients and notifier exchange, as text in and out. No state.
//
// A client's frame is one JSON object with "op". What it says is checked here as far as the
// notifier must understand it; what only the database can judge (topic of a send, lengths, unknown
// arguments) is passed on. Nesting is limited, so hostile input cannot exhaust the stack.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "bus.h"
#include "result.h"

namespace herald {

constexpr int kMaxNesting = 64;
constexpr int kMaxLast = 10'000;
constexpr Position kMaxPosition = (Position{1} << 53) - 1;

struct SubRequest {
    std::string topic;  // valid by check_pattern
    std::optional<Position> after;
    std::optional<int> last;
};

struct UnsubRequest {
    std::string topic;
};

struct SendRequest {
    std::string message;  // JSON object: the frame's members as the client wrote them, without op
                          // and id, with a sender
};

struct ClientFrame {
    std::string id;  // JSON text of the frame's id; empty if there was none
    std::variant<SubRequest, UnsubRequest, SendRequest> request;
};

// Why a frame is refused: an err frame with this id.
struct Refusal {
    std::string id;
    Error error;
};

// `text` is valid UTF-8. `sender` is what a send without "sender" gets; empty: none.
std::variant<ClientFrame, Refusal> parse_client_frame(std::string_view text,
                                                      std::string_view sender);

// Builders of the notifier's frames. `id` is JSON text or empty.
std::string ok_sub_frame(std::string_view id, std::string_view topic, Position pos);
std::string ok_unsub_frame(std::string_view id, std::string_view topic);
std::string ok_send_frame(std::string_view id, std::string_view message);
std::string err_frame(std::string_view id, const Error& error);
std::string gap_frame(std::string_view topic, Position from, Position to, std::string_view why);
std::string bye_frame(int code, bool reconnect, int after_ms, std::string_view why);

}  // namespace herald
