#include "stage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <sstream>
#include <utility>

#include "core/chunk.h"
#include "core/topic.h"

namespace herald::test {

using nlohmann::json;

namespace {

Error bus_error(const char* code) {
    return {.code = code, .message = code, .hint = {}, .sqlstate = {}, .field = {}};
}

}  // namespace

std::string sha256(std::string_view bytes) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
    return {reinterpret_cast<const char*>(digest), sizeof digest};
}

Page FakeBus::page(const PageRequest& request) const {
    Page result;
    std::vector<const Stored*> matching;
    for (const Stored& stored : log)
        if (stored.pos > request.after && topic_matches(request.topics, stored.topic))
            matching.push_back(&stored);
    if (request.last && matching.size() > static_cast<std::size_t>(*request.last))
        matching.erase(matching.begin(), matching.end() - *request.last);
    result.gap = gap;
    result.upto = horizon;
    if (horizon < request.after) {
        result.gap = Gap{horizon, "reset"};
        return result;
    }
    std::size_t bytes = 0;
    for (const Stored* stored : matching) {
        if (result.rows.size() == static_cast<std::size_t>(request.max_rows) ||
            bytes >= static_cast<std::size_t>(request.max_bytes)) {
            result.upto = result.rows.back().pos;
            break;
        }
        bytes += stored->envelope.size();
        result.rows.push_back({stored->pos, stored->topic, stored->expires_us, stored->envelope});
    }
    return result;
}

void FakeBus::read_page(PageRequest request, std::function<void(Result<Page>)> done) {
    asked.push_back(request);
    waiting.push_back([this, request = std::move(request), done = std::move(done)] {
        failure ? done(*failure) : done(page(request));
    });
}

void FakeBus::send(std::string message_json, std::function<void(Result<std::string>)> done) {
    sent.push_back(std::move(message_json));
    waiting.push_back([this, number = sent.size(), done = std::move(done)] {
        failure ? done(*failure) : done("id-" + std::to_string(number));
    });
}

template <typename Done, typename Work>
void FakeBus::later(Done done, Work work) {
    waiting.push_back([this, done = std::move(done), work = std::move(work)] {
        if (failure) return done(*failure);
        done(work());
    });
}

void FakeBus::message_by_id(std::string id, int,
                            std::function<void(Result<std::optional<MessageById>>)> done) {
    later(std::move(done), [this, id = std::move(id)]() -> std::optional<MessageById> {
        const auto found = payloads.find(id);
        if (found == payloads.end() && id.back() != '1') return std::nullopt;
        MessageById message{.envelope = "{\"id\":\"" + id + "\"}", .payload = {}};
        if (found == payloads.end()) return message;
        const StoredPayload& payload = found->second;
        message.payload = Payload{.id = id,
                                  .bytes = payload.content.size(),
                                  .sha256 = payload.state.sha256,
                                  .content_type = payload.what.content_type,
                                  .compression = payload.what.compression};
        for (const std::string& chunk : payload.chunks()) {
            message.payload->stored_bytes += chunk.size();
            ++message.payload->chunks;
        }
        return message;
    });
}

void FakeBus::read_payload(std::string id, std::uint64_t offset, std::uint64_t length,
                           std::function<void(Result<Bytes>)> done) {
    ++pieces_read;
    later(std::move(done), [this, id = std::move(id), offset, length]() -> Result<Bytes> {
        auto copy = std::make_shared<std::string>(payloads.at(id).content.substr(offset, length));
        return Bytes{.view = *copy, .owner = copy};
    });
}

void FakeBus::read_stored(std::string id, std::uint64_t from, int max_bytes,
                          std::function<void(Result<std::vector<StoredChunk>>)> done) {
    ++pieces_read;
    later(std::move(done),
          [this, id = std::move(id), from, max_bytes]() -> Result<std::vector<StoredChunk>> {
              const StoredPayload& payload = payloads.at(id);
              std::vector<StoredChunk> chunks;
              std::uint64_t at = from;
              std::size_t given = 0;
              for (std::string& chunk : payload.chunks(from)) {
                  if (given >= static_cast<std::size_t>(max_bytes)) break;
                  given += chunk.size();
                  auto kept = std::make_shared<std::string>(std::move(chunk));
                  const auto bytes =
                      std::min<std::uint64_t>(kMaxChunk, payload.content.size() - at);
                  chunks.push_back({at, bytes, {*kept, kept}});
                  at += bytes;
              }
              return chunks;
          });
}

std::vector<std::string> StoredPayload::chunks(std::size_t from) const {
    const Compression compression = compression_by_name(what.compression).value();
    std::vector<std::string> result;
    for (; from < content.size(); from += kMaxChunk) {
        const std::string_view piece = std::string_view(content).substr(from, kMaxChunk);
        std::string chunk(compress_bound(compression, piece.size()), '\0');
        chunk.resize(compress(compression, piece, chunk.data(), chunk.size()));
        result.push_back(std::move(chunk));
    }
    return result;
}

std::string FakeBus::new_payload(NewPayload what) {
    char id[64];
    std::snprintf(id, sizeof id, "01990000-0000-7000-8000-%012zu", payloads.size() + 1);
    if (what.compression.empty()) what.compression = "none";
    StoredPayload& payload = payloads[id];
    payload.state.length = what.bytes;
    payload.what = std::move(what);
    return id;
}

std::string FakeBus::store_payload(std::string content, NewPayload what) {
    const std::string id = new_payload(std::move(what));
    StoredPayload& payload = payloads[id];
    payload.content = std::move(content);
    payload.state = {.kind = UploadState::Kind::kComplete,
                     .bytes = payload.content.size(),
                     .length = {},
                     .sha256 = sha256(payload.content)};
    return id;
}

void FakeBus::put_payload(NewPayload what, std::string content, std::string digest,
                          std::function<void(Result<PutPayload>)> done) {
    ++puts;
    later(std::move(done),
          [this, what = std::move(what), content = std::move(content),
           digest = std::move(digest)]() -> Result<PutPayload> {
              if (content.size() > max_payload) return bus_error("limit");
              if (!digest.empty() && digest != sha256(content)) return bus_error("digest");
              return PutPayload{.id = store_payload(content, what), .sha256 = sha256(content)};
          });
}

void FakeBus::open_payload(NewPayload what, std::function<void(Result<std::string>)> done) {
    later(std::move(done), [this, what = std::move(what)]() -> Result<std::string> {
        if (what.bytes.value_or(0) > max_payload) return bus_error("limit");
        return new_payload(what);
    });
}

void FakeBus::write_payload(std::string id, std::uint64_t offset, std::string content,
                            std::function<void(Result<std::uint64_t>)> done) {
    pieces_written.push_back(content.size());
    later(std::move(done),
          [this, id = std::move(id), offset,
           content = std::move(content)]() -> Result<std::uint64_t> {
              StoredPayload& payload = payloads.at(id);
              if (payload.content.size() != offset) return bus_error("offset");
              if (offset + content.size() > max_payload) return bus_error("limit");
              payload.content += content;
              return payload.state.bytes = payload.content.size();
          });
}

void FakeBus::close_payload(std::string id, std::string digest,
                            std::function<void(Result<std::string>)> done) {
    later(std::move(done),
          [this, id = std::move(id), digest = std::move(digest)]() -> Result<std::string> {
              StoredPayload& payload = payloads.at(id);
              const std::string actual = sha256(payload.content);
              if (!digest.empty() && digest != actual) return bus_error("digest");
              payload.state.kind = UploadState::Kind::kComplete;
              return payload.state.sha256 = actual;
          });
}

void FakeBus::abort_payload(std::string id, std::function<void(Result<std::monostate>)> done) {
    ++aborts;
    later(std::move(done), [this, id = std::move(id)]() -> Result<std::monostate> {
        const auto found = payloads.find(id);
        if (found == payloads.end()) return bus_error("not_found");
        found->second.state.kind = UploadState::Kind::kGone;
        return std::monostate();
    });
}

void FakeBus::upload_state(std::string id,
                           std::function<void(Result<std::optional<UploadState>>)> done) {
    later(std::move(done), [this, id = std::move(id)]() -> std::optional<UploadState> {
        const auto found = payloads.find(id);
        return found == payloads.end() ? std::nullopt : std::optional(found->second.state);
    });
}

void FakeBus::answer_one() {
    auto answer = std::move(waiting.front());
    waiting.pop_front();
    answer();
}

Stage::Stage(const std::function<void(Config&)>& adjust) {
    spdlog::set_level(spdlog::level::off);
    std::signal(SIGPIPE, SIG_IGN);  // as the notifier's own loop does
    config.port = 0;
    if (adjust) adjust(config);
    uv_loop_init(&loop_);
    server_ = std::make_unique<Server>(&loop_, config, bus);
    const auto address = server_->listen();
    if (!address) {
        ADD_FAILURE() << address.error().message;
        return;
    }
    port_ = std::stoi(address.value().substr(address.value().rfind(':') + 1));
}

Stage::~Stage() {
    stop();
    server_.reset();
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(uv_loop_close(&loop_), 0) << "a handle is still open";
}

void Stage::stop() {
    if (stopped_) return;
    bool done = false;
    server_->stop([&] { done = true; });
    EXPECT_TRUE(until([&] { return done; }));
    stopped_ = true;
}

void Stage::start_feed() {
    fed_ = bus.log.size();
    server_->feed_started(bus.horizon);
    server_->feed_connected(true);
}

Position Stage::store(std::string_view topic, std::int64_t expires_us, std::size_t padding) {
    const Position pos = ++bus.horizon;
    bus.log.push_back({pos, std::string(topic), expires_us,
                       R"({"pos":)" + std::to_string(pos) + R"(,"topic":")" + std::string(topic) +
                           R"(","content":")" + std::string(padding, 'x') + "\"}"});
    return pos;
}

void Stage::feed(std::size_t messages) {
    std::vector<Row> rows;
    while (fed_ < bus.log.size() && rows.size() < messages) {
        const Stored& stored = bus.log[fed_++];
        rows.push_back({stored.pos, stored.topic, stored.expires_us, stored.envelope});
    }
    const bool all = fed_ == bus.log.size();
    if (rows.empty() && !all) return;
    server_->feed_messages(rows, all ? bus.horizon : rows.back().pos);
}

void Stage::turn() {
    if (!bus.held)
        while (!bus.waiting.empty()) bus.answer_one();
    uv_run(&loop_, UV_RUN_NOWAIT);
}

bool Stage::until(const std::function<bool()>& condition) {
    using std::chrono::steady_clock;
    const auto deadline = steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
        if (steady_clock::now() > deadline) return false;
        turn();
    }
    return true;
}

Client::Client(Stage& stage, int receive_buffer) : stage_(stage) {
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0)
        setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(stage.port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    fcntl(socket_, F_SETFL, O_NONBLOCK);
}

Client::~Client() {
    close(socket_);
}

std::size_t Client::try_send(std::string_view out) {
    const ssize_t sent = ::send(socket_, out.data(), out.size(), MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    // When the other side has gone, the rest goes nowhere; the test will see that it has gone.
    return errno == EAGAIN ? 0 : out.size();
}

void Client::send_bytes(std::string_view out) {
    while (!out.empty()) {
        out.remove_prefix(try_send(out));
        if (!out.empty()) stage_.turn();
    }
}

void Client::receive(std::size_t limit) {
    char buffer[65536];
    while (limit > 0) {
        const ssize_t count = recv(socket_, buffer, std::min(sizeof buffer, limit), 0);
        if (count > 0) {
            bytes.append(buffer, static_cast<std::size_t>(count));
            limit -= static_cast<std::size_t>(count);
            continue;
        }
        if (count == 0 || errno != EAGAIN) eof = true;
        return;
    }
}

bool Client::until(const std::function<bool()>& condition) {
    return stage_.until([&] {
        receive();
        return condition();
    });
}

void Client::shut_sending() {
    shutdown(socket_, SHUT_WR);
}

Client::Response Client::response(bool has_body) {
    Response result;
    std::size_t end = 0;
    if (!until([&] { return (end = bytes.find("\r\n\r\n")) != std::string::npos || eof; }) ||
        end == std::string::npos)
        return result;
    std::istringstream head(bytes.substr(0, end));
    bytes.erase(0, end + 4);
    std::string line;
    std::getline(head, line);
    result.status = std::stoi(line.substr(9, 3));
    while (std::getline(head, line)) {
        if (line.ends_with('\r')) line.pop_back();
        const std::size_t colon = line.find(':');
        std::string name = line.substr(0, colon);
        std::transform(name.begin(), name.end(), name.begin(),
                       [](char c) { return static_cast<char>(std::tolower(c)); });
        result.headers[name] = line.substr(colon + 2);
    }
    const auto length = result.headers.find("content-length");
    if (!has_body || length == result.headers.end()) return result;
    const std::size_t size = std::stoull(length->second);
    until([&] { return bytes.size() >= size || eof; });
    result.body = bytes.substr(0, size);
    bytes.erase(0, size);
    return result;
}

WebSocketClient::WebSocketClient(Stage& stage, const std::string& query) : Client(stage) {
    send_bytes("GET /ws/connect" + query +
               " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    const auto end = [this] { return bytes.find("\r\n\r\n"); };
    EXPECT_TRUE(until([&] { return end() != std::string::npos; }));
    EXPECT_TRUE(bytes.starts_with("HTTP/1.1 101 ")) << bytes;
    bytes.erase(0, end() + 4);
}

void WebSocketClient::send_frame(unsigned first_byte, std::string_view payload) {
    std::string frame(1, static_cast<char>(first_byte));
    if (payload.size() < 126) {
        frame += static_cast<char>(0x80 | payload.size());
    } else if (payload.size() < 65536) {
        frame += static_cast<char>(0xFE);
        frame += static_cast<char>(payload.size() >> 8);
        frame += static_cast<char>(payload.size());
    } else {
        frame += static_cast<char>(0xFF);
        for (int shift = 56; shift >= 0; shift -= 8)
            frame += static_cast<char>(static_cast<std::uint64_t>(payload.size()) >> shift);
    }
    frame.append(4, '\0');  // a mask that changes nothing
    frame.append(payload);
    send_bytes(frame);
}

void WebSocketClient::parse() {
    receive();
    std::size_t at = 0;
    while (bytes.size() - at >= 2) {
        const auto byte = [&](std::size_t i) {
            return static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[at + i]));
        };
        std::uint64_t length = byte(1);
        std::size_t header = 2;
        const std::size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
        if (bytes.size() - at < header + extended) break;
        if (extended > 0) length = 0;
        for (; header < 2 + extended; ++header) length = length * 256 + byte(header);
        if (bytes.size() - at < header + length) break;
        const std::string payload = bytes.substr(at + header, length);
        switch (byte(0)) {
            case 0x81:
                frames.push_back(json::parse(payload));
                break;
            case 0x88:
                close_code = payload.empty() ? 1005
                                             : static_cast<unsigned char>(payload[0]) * 256U +
                                                   static_cast<unsigned char>(payload[1]);
                break;
            case 0x89:
                ++pings;
                break;
            default:
                ADD_FAILURE() << "unexpected frame " << byte(0);
        }
        at += header + length;
    }
    bytes.erase(0, at);
}

json WebSocketClient::next() {
    stage_.until([&] {
        parse();
        return !frames.empty() || eof;
    });
    if (frames.empty()) return nullptr;
    json frame = std::move(frames.front());
    frames.pop_front();
    return frame;
}

json WebSocketClient::ask(json request) {
    const int id = ++last_id_;
    request["id"] = id;
    send(request.dump());
    json answer;
    stage_.until([&] {
        parse();
        const auto found = std::find_if(frames.begin(), frames.end(), [&](const json& frame) {
            return frame.contains("id") && frame["id"] == id;
        });
        if (found == frames.end()) return eof;
        answer = std::move(*found);
        frames.erase(found);
        return true;
    });
    answer.erase("id");
    return answer;
}

std::vector<json> WebSocketClient::drain() {
    ask({{"op", "nothing"}});
    std::vector<json> result(frames.begin(), frames.end());
    frames.clear();
    return result;
}

unsigned WebSocketClient::until_closed() {
    // Parsed when all is here: it must not eat into the time the notifier gives a closing client.
    EXPECT_TRUE(stage_.until([&] {
        receive();
        return eof;
    }));
    parse();
    return close_code;
}

std::vector<Position> positions(const std::vector<json>& frames) {
    std::vector<Position> result;
    for (const json& frame : frames)
        if (!frame.contains("op")) result.push_back(frame["pos"].get<Position>());
    return result;
}

}  // namespace herald::test
