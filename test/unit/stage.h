// A stage for tests of the whole client side: a real Server with real sockets on one loop, a log
// in memory instead of the database, and clients that are driven from the same thread. Nothing
// happens unless the test turns the loop, so every interleaving is the test's choice.
#pragma once

#include <uv.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bus.h"
#include "config.h"
#include "server.h"

namespace herald::test {

struct Stored {
    Position pos = 0;
    std::string topic;
    std::int64_t expires_us = 0;
    std::string envelope;
};

struct StoredPayload {
    NewPayload what;
    UploadState state;
    std::string content;

    // Its content as the database stores it, from the chunk that begins at `from` on.
    std::vector<std::string> chunks(std::size_t from = 0) const;
};

// A log and payloads in memory. Reads what is there at the moment of the answer.
class FakeBus final : public Bus {
  public:
    void read_page(PageRequest request, std::function<void(Result<Page>)> done) override;
    void send(std::string message_json, std::function<void(Result<std::string>)> done) override;
    void message_by_id(std::string id, int max_bytes,
                       std::function<void(Result<std::optional<MessageById>>)> done) override;
    void read_payload(std::string id, std::uint64_t offset, std::uint64_t length,
                      std::function<void(Result<Bytes>)> done) override;
    void read_stored(std::string id, std::uint64_t from, int max_bytes,
                     std::function<void(Result<std::vector<StoredChunk>>)> done) override;
    void put_payload(NewPayload what, std::string content, std::string sha256,
                     std::function<void(Result<PutPayload>)> done) override;
    void open_payload(NewPayload what, std::function<void(Result<std::string>)> done) override;
    void write_payload(std::string id, std::uint64_t offset, std::string content,
                       std::function<void(Result<std::uint64_t>)> done) override;
    void close_payload(std::string id, std::string sha256,
                       std::function<void(Result<std::string>)> done) override;
    void abort_payload(std::string id, std::function<void(Result<std::monostate>)> done) override;
    void upload_state(std::string id,
                      std::function<void(Result<std::optional<UploadState>>)> done) override;

    // A complete payload; its id is also that of a message that has it.
    std::string store_payload(std::string content, NewPayload what = {});
    // Gives the oldest answer that is due.
    void answer_one();

    std::vector<Stored> log;
    Position horizon = 0;
    std::optional<Gap> gap;        // for the pages to come
    std::optional<Error> failure;  // instead of the answers to come
    bool held = false;             // answers wait for answer_one()
    std::deque<std::function<void()>> waiting;
    std::vector<PageRequest> asked;
    std::vector<std::string> sent;
    std::map<std::string, StoredPayload> payloads;
    std::size_t max_payload = SIZE_MAX;
    std::size_t pieces_read = 0;
    std::vector<std::size_t> pieces_written;
    int puts = 0;
    int aborts = 0;

  private:
    template <typename Done, typename Work>
    void later(Done done, Work work);
    std::string new_payload(NewPayload what);
    Page page(const PageRequest& request) const;
};

class Stage {
  public:
    // The configuration has port 0; the feed has not started.
    explicit Stage(const std::function<void(Config&)>& adjust = {});
    ~Stage();
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

    // The feed starts at the end of the log and is live.
    void start_feed();
    // Appends to the log; the feed does not know yet.
    Position store(std::string_view topic, std::int64_t expires_us = 0, std::size_t padding = 0);
    // The feed reads at most so many messages more.
    void feed(std::size_t messages = SIZE_MAX);
    Position publish(std::string_view topic) {
        const Position pos = store(topic);
        feed();
        return pos;
    }

    // One turn of the loop, after the answers that are due.
    void turn();
    // Turns until the condition holds; false after a minute.
    bool until(const std::function<bool()>& condition);
    void stop();
    // The test has stopped the server itself.
    void assume_stopped() { stopped_ = true; }

    uv_loop_t* loop() { return &loop_; }
    Server& server() { return *server_; }
    int port() const { return port_; }

    Config config;
    FakeBus bus;

  private:
    uv_loop_t loop_;
    std::unique_ptr<Server> server_;
    int port_ = 0;
    std::size_t fed_ = 0;  // messages of the log that the feed has read
    bool stopped_ = false;
};

// A raw connection. `receive_buffer`: of its socket; 0: the system's choice.
class Client {
  public:
    explicit Client(Stage& stage, int receive_buffer = 0);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void send_bytes(std::string_view out);
    // What the kernel takes at once; returns how much.
    std::size_t try_send(std::string_view out);
    // Reads what has come into `bytes`, at most this much.
    void receive(std::size_t limit = SIZE_MAX);
    bool until(const std::function<bool()>& condition);
    bool until_eof() {
        return until([this] { return eof; });
    }
    // The end of what this side says; it still reads.
    void shut_sending();
    // The next response in `bytes` (interim ones, too); waits for it. Its body by Content-Length.
    struct Response {
        int status = 0;
        std::map<std::string, std::string> headers;  // names in lower case
        std::string body;
    };
    Response response(bool has_body = true);

    std::string bytes;
    bool eof = false;

  protected:
    Stage& stage_;
    int socket_ = -1;
};

// A WebSocket client that has shaken hands.
class WebSocketClient : public Client {
  public:
    explicit WebSocketClient(Stage& stage, const std::string& query = "");

    void send(std::string_view text) { send_frame(0x81, text); }
    void send_frame(unsigned first_byte, std::string_view payload);
    // The next text frame; null after a minute or at the end.
    nlohmann::json next();
    // Sends the request and returns the ok or err with its id; frames that come before it are kept
    // for next().
    nlohmann::json ask(nlohmann::json request);
    // Everything that has come when the notifier has handled all that was sent.
    std::vector<nlohmann::json> drain();
    // Waits for the end; returns the close code (0: there was no close frame).
    unsigned until_closed();
    // Sorts what has come into `frames`, `pings` and `close_code`.
    void parse();

    std::deque<nlohmann::json> frames;
    int pings = 0;
    unsigned close_code = 0;

  private:
    int last_id_ = 1'000'000;
};

// 32 bytes.
std::string sha256(std::string_view bytes);

std::vector<Position> positions(const std::vector<nlohmann::json>& frames);

}  // namespace herald::test
