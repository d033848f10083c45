#include "websocket.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <new>

namespace herald {

namespace {

constexpr std::uint16_t kProtocolError = 1002;
constexpr std::uint16_t kInvalidText = 1007;
constexpr std::uint16_t kTooBig = 1009;
// A parser that once held a big message does not keep its memory.
constexpr std::size_t kKeptCapacity = 16 * 1024;

bool is_control(Opcode opcode) {
    return static_cast<unsigned>(opcode) >= 0x8;
}

std::uint64_t header_length(const wslay_frame_iocb& frame) {
    const std::uint64_t extended = frame.payload_length < 126     ? 0
                                   : frame.payload_length < 65536 ? 2
                                                                  : 8;
    return 2 + extended + (frame.mask != 0 ? 4 : 0);
}

// Codes that may be sent in a close frame: RFC 6455, section 7.4, and the registry's 1012-1014.
bool is_close_code(unsigned code) {
    if (code >= 3000 && code <= 4999) return true;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

// 16 bytes in base64: 22 characters that carry them, of which the last has four zero bits.
bool is_key(std::string_view key) {
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (key.size() != 24 || key.substr(22) != "==") return false;
    return key.find_first_not_of(kAlphabet) == 22 &&
           std::string_view("AQgw").find(key[21]) != std::string_view::npos;
}

std::string accept_of(std::string_view key) {
    std::string text(key);
    text += "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
    SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
    std::array<unsigned char, 32> base64{};
    const int length =
        EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(digest.size()));
    return {reinterpret_cast<const char*>(base64.data()), static_cast<std::size_t>(length)};
}

}  // namespace

Handshake answer_handshake(const Request& request, std::string_view protocol) {
    const auto refuse = [](const char* why) {
        return Handshake{.response = error_response(400, "invalid", why)};
    };
    if (request.method != Method::kGet || !request.http_1_1)
        return refuse("a WebSocket needs GET and HTTP/1.1");
    if (!request.has_token("upgrade", "websocket") || !request.has_token("connection", "upgrade")) {
        Handshake result{.response = error_response(426, "invalid",
                                                    "this address speaks WebSocket: the request "
                                                    "must ask for an upgrade")};
        result.response.headers.emplace_back("Upgrade", "websocket");
        result.response.headers.emplace_back("Sec-WebSocket-Version", "13");
        return result;
    }
    if (request.header("sec-websocket-version") != "13") {
        Handshake result{.response =
                             error_response(426, "invalid", "Sec-WebSocket-Version must be 13")};
        result.response.headers.emplace_back("Sec-WebSocket-Version", "13");
        return result;
    }
    const auto key = request.header("sec-websocket-key");
    if (!key || request.count("sec-websocket-key") != 1 || !is_key(*key))
        return refuse("Sec-WebSocket-Key must be 16 bytes in base64");

    Handshake result{.response = {.status = 101, .body = {}, .type = "", .headers = {}},
                     .accepted = true};
    auto& headers = result.response.headers;
    headers.emplace_back("Upgrade", "websocket");
    headers.emplace_back("Connection", "Upgrade");
    headers.emplace_back("Sec-WebSocket-Accept", accept_of(*key));
    if (request.has_token("sec-websocket-protocol", protocol))
        headers.emplace_back("Sec-WebSocket-Protocol", std::string(protocol));
    return result;
}

WebSocketParser::WebSocketParser(std::size_t max_message) : max_message_(max_message) {
    const wslay_frame_callbacks callbacks = {nullptr, &WebSocketParser::read_input, nullptr};
    wslay_frame_context* context = nullptr;
    if (wslay_frame_context_init(&context, &callbacks, this) != 0) throw std::bad_alloc();
    context_.reset(context);
}

ssize_t WebSocketParser::read_input(std::uint8_t* to, std::size_t size, int, void* user) {
    auto& parser = *static_cast<WebSocketParser*>(user);
    const std::size_t count = std::min(size, parser.input_.size());
    if (count == 0) return 0;
    std::copy_n(parser.input_.data(), count, reinterpret_cast<char*>(to));
    parser.input_.remove_prefix(count);
    parser.unfinished_ += count;
    return static_cast<ssize_t>(count);
}

WebSocketViolation WebSocketParser::feed(std::string_view bytes, WebSocketEvents& events) {
    input_ = bytes;
    for (;;) {
        wslay_frame_iocb part{};
        const ssize_t result = wslay_frame_recv(context_.get(), &part);
        if (result == WSLAY_ERR_WANT_READ) break;
        const Step step =
            result < 0 ? fail(kProtocolError, "malformed frame header") : take(part, events);
        if (step == Step::kStop) {
            broken_ = true;
            break;
        }
    }
    input_ = {};
    return violation_;
}

WebSocketParser::Step WebSocketParser::fail(std::uint16_t code, const char* why) {
    violation_ = {code, why};
    return Step::kStop;
}

WebSocketParser::Step WebSocketParser::take(const wslay_frame_iocb& part, WebSocketEvents& events) {
    if (!in_frame_) {
        if (begin_frame(part) == Step::kStop) return Step::kStop;
        unfinished_ -= header_length(part);
    }
    const std::string_view bytes(reinterpret_cast<const char*>(part.data), part.data_length);
    unfinished_ -= bytes.size();
    received_ += bytes.size();
    if (is_control(opcode_)) {
        control_.append(bytes);
    } else {
        message_.append(bytes);
        if (message_opcode_ == Opcode::kText && !utf8_.feed(bytes))
            return fail(kInvalidText, "text is not valid UTF-8");
    }
    if (received_ < length_) return Step::kGoOn;
    in_frame_ = false;
    return end_frame(events);
}

WebSocketParser::Step WebSocketParser::begin_frame(const wslay_frame_iocb& part) {
    if (part.rsv != 0) return fail(kProtocolError, "reserved bits are set");
    if (part.mask == 0) return fail(kProtocolError, "frames from a client must be masked");
    const auto opcode = static_cast<Opcode>(part.opcode);
    switch (opcode) {
        case Opcode::kText:
        case Opcode::kBinary:
            if (in_message_) return fail(kProtocolError, "a message began inside another");
            message_opcode_ = opcode;
            break;
        case Opcode::kContinuation:
            if (!in_message_) return fail(kProtocolError, "continuation without a message");
            break;
        case Opcode::kClose:
        case Opcode::kPing:
        case Opcode::kPong:
            break;
        default:
            return fail(kProtocolError, "unknown opcode");
    }
    if (!is_control(opcode)) {
        if (part.payload_length > max_message_ - message_.size())
            return fail(kTooBig, "message is too big");
        in_message_ = true;
    }
    in_frame_ = true;
    opcode_ = opcode;
    final_ = part.fin != 0;
    length_ = part.payload_length;
    received_ = 0;
    return Step::kGoOn;
}

WebSocketParser::Step WebSocketParser::end_frame(WebSocketEvents& events) {
    bool go_on = true;
    switch (opcode_) {
        case Opcode::kClose:
            return end_close(events);
        case Opcode::kPing:
            go_on = events.on_ping(control_);
            control_.clear();
            break;
        case Opcode::kPong:
            go_on = events.on_pong(control_);
            control_.clear();
            break;
        default:
            if (!final_) return Step::kGoOn;
            if (message_opcode_ == Opcode::kText && !utf8_.complete())
                return fail(kInvalidText, "text ends inside a character");
            in_message_ = false;
            go_on = events.on_message(message_opcode_, message_);
            message_.clear();
            if (message_.capacity() > kKeptCapacity) message_.shrink_to_fit();
            break;
    }
    return go_on ? Step::kGoOn : Step::kStop;
}

WebSocketParser::Step WebSocketParser::end_close(WebSocketEvents& events) {
    if (control_.empty()) {
        events.on_close(0, {});
        return Step::kStop;
    }
    if (control_.size() == 1) return fail(kProtocolError, "close frame of one byte");
    const unsigned code =
        static_cast<unsigned char>(control_[0]) * 256U + static_cast<unsigned char>(control_[1]);
    if (!is_close_code(code)) return fail(kProtocolError, "close code is not allowed");
    const std::string_view reason = std::string_view(control_).substr(2);
    Utf8Check check;
    if (!check.feed(reason) || !check.complete())
        return fail(kInvalidText, "close reason is not valid UTF-8");
    events.on_close(static_cast<std::uint16_t>(code), reason);
    return Step::kStop;
}

std::unique_ptr<WebSocketParser> ParserPool::take() {
    if (free_.empty()) return std::make_unique<WebSocketParser>(max_message_);
    auto parser = std::move(free_.back());
    free_.pop_back();
    return parser;
}

void ParserPool::give_back(std::unique_ptr<WebSocketParser> parser) {
    if (parser->reusable() && free_.size() < kKept) free_.push_back(std::move(parser));
}

}  // namespace herald
