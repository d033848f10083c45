// WebSocket (RFC 6455), the server's side: the opening handshake and the receiving parser. No
// sockets here; outgoing frames are made by frame.h.
//
// wslay decodes frame headers and unmasks. We use its frame interface, because its event interface
// (1.1) is not strict enough: it checks a close reason's UTF-8 wrongly when the frame comes in
// pieces, accepts a close frame of one byte, answers framing errors without code 1002, and holds a
// list node per fragment, which lets one message of tiny fragments take fifty times its size.
#pragma once

#include <wslay/wslay.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "frame.h"
#include "http.h"
#include "utf8.h"

namespace herald {

struct Handshake {
    Response response;  // 101, or why not
    bool accepted = false;
};
// Judges an upgrade request. `protocol` is chosen if the client offers it.
Handshake answer_handshake(const Request& request, std::string_view protocol);

// What the parser finds. Each returns whether to go on; false when the receiver wants no more
// (then the parser is not used again for this connection).
class WebSocketEvents {
  public:
    virtual ~WebSocketEvents() = default;
    // A whole message; text is valid UTF-8. The view ends with the call.
    virtual bool on_message(Opcode opcode, std::string_view payload) = 0;
    virtual bool on_ping(std::string_view payload) = 0;
    virtual bool on_pong(std::string_view payload) = 0;
    // code 0: none was given.
    virtual bool on_close(std::uint16_t code, std::string_view reason) = 0;
};

// Why a connection must be failed: the close code and reason to send. code 0: no violation.
struct WebSocketViolation {
    std::uint16_t code = 0;
    const char* why = "";
};

// Turns a client's bytes into messages. 4 KiB big (wslay's buffer), so connections borrow one from
// a pool while a message is on its way.
class WebSocketParser {
  public:
    // max_message: bytes of a whole message.
    explicit WebSocketParser(std::size_t max_message);
    WebSocketParser(const WebSocketParser&) = delete;
    WebSocketParser& operator=(const WebSocketParser&) = delete;

    // Takes all bytes. After a violation, or when an event returned false, the parser must not be
    // used again.
    WebSocketViolation feed(std::string_view bytes, WebSocketEvents& events);
    // Between messages: nothing of this connection is left in the parser.
    bool idle() const { return unfinished_ == 0 && !in_frame_ && !in_message_; }
    // Whether it may serve another connection (idle, and not broken).
    bool reusable() const { return idle() && !broken_; }

  private:
    struct FreeContext {
        void operator()(wslay_frame_context* context) const { wslay_frame_context_free(context); }
    };
    enum class Step { kGoOn, kStop };

    static ssize_t read_input(std::uint8_t* to, std::size_t size, int flags, void* user);
    Step fail(std::uint16_t code, const char* why);
    Step take(const wslay_frame_iocb& part, WebSocketEvents& events);
    Step begin_frame(const wslay_frame_iocb& part);
    Step end_frame(WebSocketEvents& events);
    Step end_close(WebSocketEvents& events);

    std::unique_ptr<wslay_frame_context, FreeContext> context_;
    std::string_view input_;
    std::size_t max_message_;
    std::uint64_t unfinished_ = 0;  // bytes taken that belong to a frame not yet done
    WebSocketViolation violation_;

    // The frame that is coming in.
    bool in_frame_ = false;
    bool final_ = false;
    Opcode opcode_ = Opcode::kText;
    std::uint64_t length_ = 0;
    std::uint64_t received_ = 0;
    std::string control_;  // payload of a control frame

    // The message that its fragments add up to.
    bool in_message_ = false;
    Opcode message_opcode_ = Opcode::kText;
    std::string message_;
    Utf8Check utf8_;
    bool broken_ = false;
};

// Parsers not in use. Bounded; one that cannot be reused is freed.
class ParserPool {
  public:
    explicit ParserPool(std::size_t max_message) : max_message_(max_message) {}
    std::unique_ptr<WebSocketParser> take();
    void give_back(std::unique_ptr<WebSocketParser> parser);

  private:
    static constexpr std::size_t kKept = 64;
    std::size_t max_message_;
    std::vector<std::unique_ptr<WebSocketParser>> free_;
};

}  // namespace herald
