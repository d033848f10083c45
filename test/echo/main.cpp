// herald-echo PORT: sends every WebSocket message back, text as text and binary as binary. It runs
// on the notifier's own socket, HTTP and WebSocket code and needs no database, so that outside
// conformance tools can be pointed at that code. Listens on 127.0.0.1; port 0 takes a free one.
// Prints "127.0.0.1:PORT" when it is ready.

#include <uv.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "listener.h"

namespace {

using namespace herald;

constexpr std::size_t kMaxMessage = 64 * 1024 * 1024;

class Echo final : public MessageHandler {
  public:
    explicit Echo(Connection& connection) : connection_(connection) {}

    void on_text(std::string_view text) override {
        connection_.send_message(Frame::of(Opcode::kText, text));
    }
    void on_binary(std::string_view bytes) override {
        connection_.send_message(Frame::of(Opcode::kBinary, bytes));
    }

  private:
    Connection& connection_;
};

class EchoRequests final : public RequestHandler {
  public:
    void on_request(Connection& connection, const Request& request) override {
        const Handshake handshake = answer_handshake(request, "echo");
        if (handshake.accepted) {
            connection.upgrade(handshake.response, std::make_unique<Echo>(connection));
        } else {
            connection.respond(handshake.response);
        }
    }
};

void stop(uv_signal_t* signal, int) {
    uv_signal_stop(signal);
    static_cast<Listener*>(signal->data)->stop([] {});
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: herald-echo PORT\n", stderr);
        return 2;
    }
    std::signal(SIGPIPE, SIG_IGN);
    uv_loop_t* loop = uv_default_loop();
    EchoRequests requests;
    Listener listener(loop, {.max_message = kMaxMessage, .max_buffer = 4 * kMaxMessage}, requests);
    const auto port = listener.listen("127.0.0.1", std::atoi(argv[1]));
    if (!port) {
        std::fprintf(stderr, "herald-echo: %s\n", port.error().message.c_str());
        return 1;
    }
    uv_signal_t signal;
    uv_signal_init(loop, &signal);
    signal.data = &listener;
    uv_signal_start(&signal, stop, SIGTERM);
    uv_unref(reinterpret_cast<uv_handle_t*>(&signal));

    std::printf("127.0.0.1:%d\n", port.value());
    std::fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
