#include "connection.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "clock.h"
#include "close_code.h"
#include "listener.h"

namespace herald {

namespace {

constexpr std::size_t kGatheredFrames = 256;
// How long a peer may take to read our close frame and shut its half.
constexpr std::uint64_t kCloseTimeoutMs = 2000;
constexpr std::uint8_t kMaxLingers = 15;

}  // namespace

Connection::Connection(Listener& listener, Number number)
    : listener_(listener),
      number_(number),
      output_(listener.output_pool()),
      connected_at_us_(unix_microseconds()) {
    uv_tcp_init(listener.loop(), &socket_);
    socket_.data = this;
}

Connection::~Connection() {
    listener_.cancel(*this);
}

std::string Connection::remote() const {
    sockaddr_storage address{};
    int length = sizeof address;
    if (uv_tcp_getpeername(&socket_, reinterpret_cast<sockaddr*>(&address), &length) != 0)
        return {};
    return address_text(address);
}

void Connection::start() {
    http_ = std::make_unique<HttpStage>();
    await_request(listener_.options().head_timeout_ms);
    start_reading();
}

void Connection::refuse(const Response& response) {
    push(encode_response(response, false, false));
    begin_closing(kCloseTimeoutMs);
    start_reading();
}

// Reading

void Connection::start_reading() {
    if (reading_ || peer_done_) return;
    const auto allocate = [](uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
        *buffer = static_cast<Connection*>(handle->data)->listener_.read_buffer();
    };
    const auto done = [](uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer) {
        auto& connection = *static_cast<Connection*>(stream->data);
        if (count > 0) {
            connection.read({buffer->base, static_cast<std::size_t>(count)});
        } else if (count == UV_EOF) {
            connection.peer_done();
        } else if (count < 0) {
            connection.destroy();
        }
    };
    if (uv_read_start(stream(), allocate, done) == 0) {
        reading_ = true;
    } else {
        broken_ = true;
        mark_dirty();
    }
}

void Connection::stop_reading() {
    if (!reading_) return;
    reading_ = false;
    uv_read_stop(stream());
}

void Connection::pause_reading(bool paused) {
    if (!is_open() || paused == paused_) return;
    paused_ = paused;
    if (paused) {
        stop_reading();
    } else {
        last_heard_ = listener_.now();
        start_reading();
    }
}

void Connection::read(std::string_view bytes) {
    last_heard_ = listener_.now();
    if (state_ == State::kHttp) {
        http_->heard += bytes.size();
        serve_requests(bytes);
    } else if (state_ == State::kOpen) {
        read_frames(bytes);
    }
}

// The peer has shut its half. It may still read: what it asked for is answered.
void Connection::peer_done() {
    peer_done_ = true;
    stop_reading();
    if (state_ == State::kHttp && http_->body && http_->exchange) {
        refuse_request({400, "the connection ended in the middle of the body"});
        return;
    }
    if (state_ == State::kHttp && http_->answering) return;
    if (is_open() || output_.empty()) {
        destroy();
    } else if (state_ == State::kHttp) {
        begin_closing(listener_.options().idle_timeout_ms);
    }
}

// HTTP

void Connection::await_request(std::uint64_t timeout_ms) {
    listener_.schedule(*this, listener_.now() + timeout_ms);
}

void Connection::serve_requests(std::string_view bytes) {
    HttpStage& http = *http_;
    http.in_loop = true;
    while (!bytes.empty() && state_ == State::kHttp) {
        const bool in_body = http.body && http.exchange;
        if (in_body && http.exchange->room() > 0) {
            bytes.remove_prefix(serve_body(bytes));
        } else if (http.answering || above_low_water()) {
            // At most one read's worth, because reading stops.
            http.unread.append(bytes);
            http.held = in_body;
            stop_reading();
            if (!http.answering) call_when_drained();
            break;
        } else {
            bytes.remove_prefix(serve_head(bytes));
        }
    }
    http.in_loop = false;
    if (state_ == State::kHttp) return;
    http_.reset();
    if (state_ == State::kOpen && !bytes.empty()) read_frames(bytes);
}

std::size_t Connection::serve_head(std::string_view bytes) {
    HttpStage& http = *http_;
    if (!http.reader.begun()) await_request(listener_.options().head_timeout_ms);
    const std::size_t used = http.reader.feed(bytes);
    if (http.reader.failure().status != 0) {
        refuse_request(http.reader.failure());
    } else if (http.reader.complete()) {
        listener_.cancel(*this);
        http.answering = true;
        const Request& request = http.reader.request();
        if (request.has_body()) http.body.emplace(request.body_length);
        listener_.handler().on_request(*this, request);
    }
    return used;
}

std::size_t Connection::serve_body(std::string_view bytes) {
    HttpStage& http = *http_;
    const std::shared_ptr<Exchange> exchange = http.exchange;
    std::string_view content;
    const std::size_t used = http.body->feed(bytes, exchange->room(), content);
    http.invited = true;  // a body that comes by itself needs no invitation
    if (http.body->failure().status != 0) {
        refuse_request(http.body->failure());
        return used;
    }
    const bool ended = http.body->complete();
    if (ended) http.body.reset();
    if (!content.empty()) exchange->on_body(content);
    if (ended && http.exchange == exchange) exchange->on_body_end();
    return used;
}

// What was asked is malformed: there is no telling where the next request would begin.
void Connection::refuse_request(const HttpFailure& failure) {
    drop_exchange();
    answer(error_response(failure.status, "invalid", failure.why), false,
           http_->reader.request().head_only);
}

// Goes on after an answer that came late or was long.
void Connection::take_up_requests() {
    if (http_->in_loop || http_->answering) return;
    if (above_low_water()) {
        call_when_drained();
        return;
    }
    start_reading();
    const std::string bytes = std::exchange(http_->unread, {});
    serve_requests(bytes);
}

bool Connection::may_keep_alive() const {
    return http_->reader.request().keep_alive && !http_->body && !listener_.stopping() &&
           !peer_done_;
}

void Connection::respond(const Response& response) {
    if (state_ != State::kHttp || !http_->answering) return;
    http_->answering = false;
    http_->exchange.reset();
    answer(response, may_keep_alive(), http_->reader.request().head_only);
    if (state_ == State::kHttp && !http_->in_loop) take_up_requests();
}

void Connection::answer(const Response& response, bool keep_alive, bool head_only) {
    push(encode_response(response, keep_alive, head_only));
    next_request(keep_alive);
}

void Connection::next_request(bool keep_alive) {
    if (keep_alive) {
        http_->reader.next();
        http_->invited = false;
        await_request(listener_.options().idle_timeout_ms);
    } else {
        start_reading();  // to notice when the peer has gone
        begin_closing(listener_.options().idle_timeout_ms);
    }
}

// Exchanges

void Connection::begin(std::shared_ptr<Exchange> exchange) {
    http_->exchange = std::move(exchange);
    http_->moved_before = moved();
    await_request(listener_.options().idle_timeout_ms);
}

bool Connection::invite_body(std::string_view location) {
    const Request& asked = request();
    if (http_->invited || !http_->body || !asked.http_1_1 ||
        !asked.has_token("expect", "100-continue"))
        return false;
    http_->invited = true;
    std::string head = "HTTP/1.1 100 Continue\r\n";
    if (!location.empty()) head.append("Location: ").append(location).append("\r\n");
    push(Frame::raw(head.append("\r\n")));
    return true;
}

void Connection::read_on() {
    if (!http_->held || http_->in_loop) return;
    http_->held = false;
    await_request(listener_.options().idle_timeout_ms);
    start_reading();
    const std::string bytes = std::exchange(http_->unread, {});
    serve_requests(bytes);
}

void Connection::begin_answer(const Response& response, std::uint64_t length) {
    http_->keep_alive = may_keep_alive();
    push(encode_head(response, http_->keep_alive, length));
}

void Connection::write(Frame frame) {
    // It is awaited from now on that the client takes something.
    if (output_.empty()) await_request(listener_.options().idle_timeout_ms);
    push(std::move(frame));
}

void Connection::end_answer(bool whole) {
    http_->answering = false;
    http_->exchange.reset();
    next_request(whole && http_->keep_alive && !listener_.stopping());
    if (state_ == State::kHttp && !http_->in_loop) take_up_requests();
}

void Connection::drop_exchange() {
    if (!http_) return;
    if (const auto exchange = std::exchange(http_->exchange, nullptr)) exchange->on_gone();
}

void Connection::upgrade(const Response& response, std::unique_ptr<MessageHandler> handler) {
    push(encode_response(response, true, false));
    handler_ = std::move(handler);
    state_ = State::kOpen;
    next_ping_ = listener_.now() + listener_.options().ping_interval_ms;
    listener_.schedule(*this, next_ping_);
    listener_.count_open(+1);
}

// WebSocket

void Connection::read_frames(std::string_view bytes) {
    if (!parser_) parser_ = listener_.parsers().take();
    const WebSocketViolation violation = parser_->feed(bytes, *this);
    if (violation.code != 0) close(violation.code, violation.why);
    if (!is_open()) {
        parser_.reset();
    } else if (parser_->idle()) {
        listener_.parsers().give_back(std::move(parser_));
    }
}

bool Connection::on_message(Opcode opcode, std::string_view payload) {
    ++received_;
    if (opcode == Opcode::kText) {
        handler_->on_text(payload);
    } else {
        handler_->on_binary(payload);
    }
    return is_open();
}

bool Connection::on_ping(std::string_view payload) {
    send(Frame::of(Opcode::kPong, payload));
    return true;
}

bool Connection::on_pong(std::string_view) {
    return true;  // last_heard_ is all it is for
}

bool Connection::on_close(std::uint16_t code, std::string_view) {
    push(Frame::close(code, {}));
    leave_open();
    begin_closing(kCloseTimeoutMs);
    return false;
}

void Connection::send(Frame frame) {
    if (!is_open() || overflowed_) return;
    const std::size_t limit = listener_.options().max_buffer;
    // A burst within one turn of the loop is no sign of a slow client: first see what the socket
    // takes.
    if (output_.bytes() > limit) write_out();
    if (output_.bytes() > limit) {
        overflowed_ = true;
        mark_dirty();
        return;
    }
    push(std::move(frame));
}

void Connection::call_when_drained() {
    wants_drained_ = true;
    mark_dirty();
}

bool Connection::above_low_water() const {
    return output_.bytes() > listener_.options().max_buffer / 4;
}

void Connection::close(std::uint16_t code, std::string_view why) {
    if (!is_open()) return;
    push(handler_->farewell(code, why));
    push(Frame::close(code, why));
    listener_.count_close(code);
    leave_open();
    begin_closing(kCloseTimeoutMs);
}

void Connection::leave_open() {
    state_ = State::kClosing;
    listener_.count_open(-1);
    handler_->on_closed();
}

// Writing

void Connection::push(Frame frame) {
    if (!frame) return;
    output_.push(std::move(frame));
    mark_dirty();
}

void Connection::mark_dirty() {
    if (dirty_) return;
    dirty_ = true;
    listener_.add_dirty(*this);
}

void Connection::write_out() {
    std::array<uv_buf_t, kGatheredFrames> buffers;
    while (!write_pending_ && !broken_ && !output_.empty()) {
        const std::size_t count = output_.gather(buffers);
        std::size_t offered = 0;
        for (std::size_t i = 0; i < count; ++i) offered += buffers[i].len;
        const int taken = uv_try_write(stream(), buffers.data(), static_cast<unsigned>(count));
        if (taken < 0 && taken != UV_EAGAIN) {
            broken_ = true;
            mark_dirty();
            return;
        }
        const auto written = static_cast<std::size_t>(std::max(taken, 0));
        output_.consume(written);
        written_ += written;
        if (written < offered) wait_writable();
    }
}

// The socket is full. libuv gets the rest of the first frame only; when that is written there is
// room again. The others stay ours, to be dropped if the client is too slow.
void Connection::wait_writable() {
    auto* request = new uv_write_t;
    const uv_buf_t buffer = output_.first();
    const auto done = [](uv_write_t* finished, int status) {
        auto& connection = *static_cast<Connection*>(finished->handle->data);
        delete finished;
        connection.write_pending_ = false;
        if (connection.state_ == State::kClosed) return;
        if (status < 0) {
            connection.broken_ = true;
        } else {
            const std::size_t size = connection.output_.first().len;
            connection.output_.consume(size);
            connection.written_ += size;
        }
        connection.mark_dirty();
    };
    if (uv_write(request, stream(), &buffer, 1, done) == 0) {
        write_pending_ = true;
        return;
    }
    delete request;
    broken_ = true;
    mark_dirty();
}

void Connection::settle() {
    dirty_ = false;
    if (state_ == State::kClosed) return;
    if (overflowed_ && is_open()) {
        output_.drop_unsent(write_pending_);
        close(kCloseTooSlow, "too slow");
    }
    write_out();
    if (broken_) {
        destroy();
        return;
    }
    if (state_ == State::kHttp && http_->exchange) {
        const std::shared_ptr<Exchange> exchange = http_->exchange;
        exchange->on_written();
    }
    if (wants_drained_ && !above_low_water()) {
        wants_drained_ = false;
        if (state_ == State::kHttp) take_up_requests();
        if (is_open()) handler_->on_drained();
    }
    if (state_ == State::kClosing && output_.empty() && !half_closed_) half_close();
}

// The end

void Connection::begin_closing(std::uint64_t timeout_ms) {
    state_ = State::kClosing;
    if (paused_) start_reading();
    listener_.schedule(*this, listener_.now() + timeout_ms);
    mark_dirty();
}

// Closing the socket while bytes from the peer are unread would destroy what we have just written;
// so we shut our half and read until the peer has shut its own.
void Connection::half_close() {
    half_closed_ = true;
    uv_os_fd_t descriptor = -1;
    if (peer_done_ || uv_fileno(reinterpret_cast<uv_handle_t*>(&socket_), &descriptor) != 0 ||
        ::shutdown(descriptor, SHUT_WR) != 0) {
        destroy();
        return;
    }
    listener_.schedule(*this, listener_.now() + kCloseTimeoutMs);
}

void Connection::stop() {
    if (is_open()) {
        close(kCloseGoingAway, "server stops");
    } else if (state_ == State::kHttp && !http_->answering) {
        begin_closing(kCloseTimeoutMs);
        http_.reset();
    } else if (state_ == State::kHttp && http_->exchange) {
        const std::shared_ptr<Exchange> exchange = http_->exchange;
        exchange->on_stop();
    }
}

void Connection::destroy() {
    if (state_ == State::kClosed) return;
    if (is_open()) leave_open();
    drop_exchange();
    state_ = State::kClosed;
    listener_.cancel(*this);
    uv_close(reinterpret_cast<uv_handle_t*>(&socket_), [](uv_handle_t* handle) {
        auto& connection = *static_cast<Connection*>(handle->data);
        connection.listener_.remove(connection);
    });
}

void Connection::on_due(std::uint64_t now) {
    if (state_ == State::kHttp) {
        http_due(now);
    } else if (is_open()) {
        open_due(now);
    } else if (half_closed_ && now < last_heard_ + kCloseTimeoutMs && lingers_ < kMaxLingers) {
        // It still sends what it was answered to before the end. Cut off now, it would not see the
        // answer.
        ++lingers_;
        listener_.schedule(*this, now + kCloseTimeoutMs);
    } else {
        destroy();
    }
}

// Bytes that the peer has sent, and that it has acknowledged: what the kernel still holds for it
// may be more than a slow one takes in an idle time-out.
std::uint64_t Connection::moved() const {
    std::uint64_t written = written_;
    if (write_pending_) written += output_.first().len - socket_.write_queue_size;
    uv_os_fd_t descriptor = -1;
    int queued = 0;
    if (uv_fileno(reinterpret_cast<const uv_handle_t*>(&socket_), &descriptor) == 0 &&
        ::ioctl(descriptor, SIOCOUTQ, &queued) == 0)
        written -= static_cast<std::uint64_t>(queued);
    return written + http_->heard;
}

void Connection::exchange_due(std::uint64_t now) {
    const bool awaits_peer = !output_.empty() || (http_->body && !http_->held);
    const std::uint64_t moved_now = moved();
    if (!awaits_peer || moved_now != http_->moved_before) {
        http_->moved_before = moved_now;
        listener_.schedule(*this, now + listener_.options().idle_timeout_ms);
        const std::shared_ptr<Exchange> exchange = http_->exchange;
        exchange->on_slow();
    } else if (output_.empty()) {
        drop_exchange();
        answer(error_response(408, "invalid", "the body stopped coming"), false, false);
    } else {
        destroy();
    }
}

void Connection::http_due(std::uint64_t now) {
    if (http_->exchange) {
        exchange_due(now);
    } else if (!output_.empty() && moved() != http_->moved_before) {
        // Slow, but it reads.
        http_->moved_before = moved();
        listener_.schedule(*this, now + listener_.options().idle_timeout_ms);
    } else if (output_.empty() && http_->reader.begun()) {
        answer(error_response(408, "invalid", "the request did not come in time"), false, false);
        http_.reset();
    } else {
        destroy();
    }
}

void Connection::open_due(std::uint64_t now) {
    const ListenerOptions& options = listener_.options();
    if (paused_) last_heard_ = now;
    if (now >= last_heard_ + options.idle_timeout_ms) {
        close(kCloseIdle, "no sign of life");
        return;
    }
    if (now >= next_ping_) {
        next_ping_ = now + options.ping_interval_ms;
        send(listener_.ping());
    }
    listener_.schedule(*this, std::min(next_ping_, last_heard_ + options.idle_timeout_ms));
}

}  // namespace herald
