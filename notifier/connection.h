// Connection: one accepted socket, from the first HTTP request to the last byte of a WebSocket.
//
//     http ── upgrade() ──> open ── close() or the peer's close ──> closing ──> closed
//      └──────── an answer without keep-alive, or an error ────────────┘
//
// http     requests are answered one after the other, in order; the next is not looked at before
//          the answer to the last is on its way. A body, of the request or the answer, that is a
//          stream is an Exchange's, piece by piece
// open     messages go to the MessageHandler, frames come from send()
// closing  what is queued is written, then our half is shut; the peer's half or a deadline ends it
// closed   the handle is being closed; the object dies in its close callback
//
// Invariants
// - Output is queued and written once per turn of the loop, all connections one after the other,
//   each with one gathered write (Listener::flush). send() itself has no effect but on this
//   object's queue and socket: it never closes, calls back or frees anything.
// - More than max_buffer bytes queued for a WebSocket after the socket took what it could: the
// queue
//   is dropped and the client gets close code 4009. An exchange queues as much as it likes; it is
//   told when what it queued has left.
// - While an exchange goes on, a client that neither sends what is awaited nor takes what is queued
//   for the idle time-out is cut off; one that moves, however slowly, is not.
// - Idle, a connection holds no parser, no HTTP reader and no output memory.
// Loop thread only.
#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "deadlines.h"
#include "frame.h"
#include "http.h"
#include "http_body.h"
#include "output.h"
#include "websocket.h"

namespace herald {

class Connection;
class Listener;

// What is said over one open WebSocket. Owned by its connection.
class MessageHandler {
  public:
    virtual ~MessageHandler() = default;
    virtual void on_text(std::string_view text) = 0;
    virtual void on_binary(std::string_view bytes) = 0;
    // Output fell below the low-water mark after Connection::call_when_drained().
    virtual void on_drained() {}
    // The WebSocket is no longer open: send() does nothing any more. Called once.
    virtual void on_closed() {}
    // What is to be sent before a close frame of ours; may be no frame.
    virtual Frame farewell(std::uint16_t /*code*/, std::string_view /*why*/) { return {}; }
};

// One request whose body or whose answer is a stream. Shared by its connection, until it is over,
// and whatever it waits for. Everything but on_gone() may end it.
class Exchange {
  public:
    virtual ~Exchange() = default;
    // How much of the request's body may come now. With 0 nothing more is read before
    // Connection::read_on().
    virtual std::size_t room() const { return SIZE_MAX; }
    // The next bytes of the body, at most room().
    virtual void on_body(std::string_view /*bytes*/) {}
    // The body has come to its end.
    virtual void on_body_end() {}
    // Some of what was queued may have left.
    virtual void on_written() {}
    // The client has been slow for an idle time-out, but it moves.
    virtual void on_slow() {}
    // The server stops: what takes long is to be broken off.
    virtual void on_stop() {}
    // The connection is gone, or another answer has been given: it must not be used any more.
    // Called once, unless the exchange ends by itself.
    virtual void on_gone() {}
};

// What answers HTTP requests: by calling on the connection upgrade(), begin(), or respond(), now or
// later (then find it by number, as the connection may be gone).
class RequestHandler {
  public:
    virtual ~RequestHandler() = default;
    virtual void on_request(Connection& connection, const Request& request) = 0;
};

class Connection final : private WebSocketEvents, private TimedItem {
  public:
    using Number = std::uint64_t;

    Connection(Listener& listener, Number number);
    ~Connection() override;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    Number number() const { return number_; }
    bool is_open() const { return state_ == State::kOpen; }
    // The peer's address and port.
    std::string remote() const;
    std::int64_t connected_at_us() const { return connected_at_us_; }  // Unix microseconds
    std::uint64_t messages_sent() const { return sent_; }
    std::uint64_t messages_received() const { return received_; }
    std::size_t buffered() const { return output_.bytes(); }
    // The handler while the WebSocket is open, else null.
    MessageHandler* handler() const { return is_open() ? handler_.get() : nullptr; }

    // Whether a request waits for its answer or is being answered.
    bool answering() const { return state_ == State::kHttp && http_->answering; }
    // That request. Precondition: answering().
    const Request& request() const { return http_->reader.request(); }
    // Answers the current request, which ends its exchange. Does nothing if there is none (any
    // more). A body of which a part is missing ends the connection.
    void respond(const Response& response);
    // Leaves the current request to an exchange. One that is to take the request's body must be
    // given inside RequestHandler::on_request.
    void begin(std::shared_ptr<Exchange> exchange);

    // For the exchange. Tells a client that waits for it to send the body, and, if that is known,
    // where it goes to. False: it does not wait.
    bool invite_body(std::string_view location = {});
    // There is room for the body again.
    void read_on();
    // Answers with this head (its own body is left out) and `length` bytes that write() brings.
    void begin_answer(const Response& response, std::uint64_t length);
    void write(Frame frame);
    // All has been given to write(). Not `whole`: something is missing and must not be taken for
    // all, so the connection ends early.
    void end_answer(bool whole);
    // Answers the current request with 101; from now on this is a WebSocket. Only from inside
    // RequestHandler::on_request.
    void upgrade(const Response& response, std::unique_ptr<MessageHandler> handler);

    // Queues a frame. Does nothing unless open.
    void send(Frame frame);
    // Queues a message: a frame that counts in messages_sent().
    void send_message(const Frame& frame) {
        ++sent_;
        send(frame);
    }
    // Asks for MessageHandler::on_drained, in this or a later turn.
    void call_when_drained();
    // Whether so much is queued that a replay should wait for on_drained.
    bool above_low_water() const;
    // Ends an open WebSocket: farewell, close frame, end. Not from inside send().
    void close(std::uint16_t code, std::string_view why);
    // While paused nothing is read; what one read brought may still come. Pongs are not missed.
    void pause_reading(bool paused);

  private:
    friend class Listener;
    enum class State : std::uint8_t { kHttp, kOpen, kClosing, kClosed };
    struct HttpStage {
        HttpReader reader;
        std::string unread;            // bytes that come later in the stream than what is served
        std::optional<HttpBody> body;  // of the request, while it comes
        std::shared_ptr<Exchange> exchange;
        bool answering = false;   // a request is with the handler
        bool in_loop = false;     // serve_requests() is running
        bool held = false;        // the exchange has no room for more of the body
        bool invited = false;     // the body, by 100 Continue
        bool keep_alive = false;  // after the answer that is being written
        std::uint64_t heard = 0;  // bytes since the beginning
        std::uint64_t moved_before = 0;
    };

    // For the listener.
    void start();                           // accepted: begin with the first request
    void refuse(const Response& response);  // accepted, but there is no room
    void settle();                          // writes what is queued and draws conclusions
    void stop();                            // the server stops
    void destroy();                         // at once, whatever is queued
    uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&socket_); }

    void read(std::string_view bytes);
    void peer_done();
    void serve_requests(std::string_view bytes);
    std::size_t serve_head(std::string_view bytes);
    std::size_t serve_body(std::string_view bytes);
    void refuse_request(const HttpFailure& failure);
    void take_up_requests();
    void drop_exchange();
    bool may_keep_alive() const;
    void next_request(bool keep_alive);
    void answer(const Response& response, bool keep_alive, bool head_only);
    void await_request(std::uint64_t timeout_ms);
    void read_frames(std::string_view bytes);
    void start_reading();
    void stop_reading();

    void push(Frame frame);
    void mark_dirty();
    void write_out();
    void wait_writable();
    void leave_open();
    void begin_closing(std::uint64_t timeout_ms);
    void half_close();

    bool on_message(Opcode opcode, std::string_view payload) override;
    bool on_ping(std::string_view payload) override;
    bool on_pong(std::string_view payload) override;
    bool on_close(std::uint16_t code, std::string_view reason) override;
    void on_due(std::uint64_t now) override;
    void http_due(std::uint64_t now);
    void exchange_due(std::uint64_t now);
    std::uint64_t moved() const;
    void open_due(std::uint64_t now);

    uv_tcp_t socket_;
    Listener& listener_;
    const Number number_;
    Output output_;
    std::unique_ptr<HttpStage> http_;
    std::unique_ptr<MessageHandler> handler_;
    std::unique_ptr<WebSocketParser> parser_;  // while a message is on its way
    std::int64_t connected_at_us_;
    std::uint64_t sent_ = 0;
    std::uint64_t received_ = 0;
    std::uint64_t written_ = 0;     // bytes
    std::uint64_t last_heard_ = 0;  // loop time, ms
    std::uint64_t next_ping_ = 0;
    State state_ = State::kHttp;
    bool dirty_ : 1 = false;          // in the listener's list of connections to settle
    bool write_pending_ : 1 = false;  // the socket is full; libuv has the first frame
    bool broken_ : 1 = false;         // a write failed
    bool overflowed_ : 1 = false;     // over max_buffer: to be cut off
    bool wants_drained_ : 1 = false;
    bool half_closed_ : 1 = false;
    bool reading_ : 1 = false;
    bool paused_ : 1 = false;
    bool peer_done_ : 1 = false;  // it sends no more
    std::uint8_t lingers_ = 0;    // how often a peer that still sends has been given more time
};

}  // namespace herald
