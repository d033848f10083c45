// A client's bytes: however they are split, the parser reports the same and fails with the same
// code; text that it reports is valid UTF-8. The first byte of the input chooses the split.

#include "websocket.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "require.h"

using namespace herald;

namespace {

constexpr std::size_t kLimit = 4096;

class Recorder final : public WebSocketEvents {
  public:
    bool on_message(Opcode opcode, std::string_view payload) override {
        require(payload.size() <= kLimit);
        Utf8Check check;
        if (opcode == Opcode::kText) require(check.feed(payload) && check.complete());
        return note(opcode == Opcode::kText ? 't' : 'b', payload);
    }
    bool on_ping(std::string_view payload) override { return note('i', payload); }
    bool on_pong(std::string_view payload) override { return note('o', payload); }
    bool on_close(std::uint16_t code, std::string_view reason) override {
        note('c', std::to_string(code) + std::string(reason));
        closed = true;
        return false;
    }
    std::string log;
    bool closed = false;

  private:
    bool note(char kind, std::string_view payload) {
        log += kind;
        log.append(std::to_string(payload.size())).append(payload);
        return true;
    }
};

std::string outcome(std::string_view bytes, std::size_t piece) {
    WebSocketParser parser(kLimit);
    Recorder recorder;
    unsigned code = 0;
    while (!bytes.empty() && code == 0 && !recorder.closed) {
        code = parser.feed(bytes.substr(0, piece), recorder).code;
        bytes.remove_prefix(std::min(piece, bytes.size()));
    }
    require(code == 0 || !parser.reusable());
    return recorder.log + "/" + std::to_string(code) + (parser.reusable() ? "r" : "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
    const std::string whole = outcome(bytes, SIZE_MAX);
    require(outcome(bytes, std::size_t{data[0]} + 1) == whole);
    require(outcome(bytes, 1) == whole);
    return 0;
}
