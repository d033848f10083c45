// A client's bytes as HTTP: however they are split, the same requests are read and the same failure
// is found, within the limits. What a request says is then taken apart as the routes do. The first
// byte of the input chooses the split.

#include "http.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "access.h"
#include "require.h"
#include "websocket.h"

using namespace herald;

namespace {

std::string look_at(const Request& request) {
    require(request.url.size() <= HttpReader::kMaxUrl);
    require(request.count("host") == 1);
    std::string result = request.url;
    for (const auto& [name, value] : request.headers) result += "\n" + name + ":" + value;
    if (const auto target = parse_target(request.url)) percent_decode(target->path, false);
    static const Access kAccess({"https://app.example"}, {"bus.example"});
    kAccess.refuse(request);
    const Handshake handshake = answer_handshake(request, "herald.v1");
    require(handshake.accepted == (handshake.response.status == 101));
    return result;
}

std::string outcome(std::string_view bytes, std::size_t piece) {
    HttpReader reader;
    std::string result;
    while (!bytes.empty()) {
        const std::size_t used = reader.feed(bytes.substr(0, piece));
        require(used <= std::min(piece, bytes.size()));
        bytes.remove_prefix(used);
        if (reader.failure().status != 0) return result + std::to_string(reader.failure().status);
        if (!reader.complete()) {
            require(used > 0);
            continue;
        }
        result += look_at(reader.request()) + "\n\n";
        reader.next();
    }
    return result;
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
