// A client's bytes as HTTP: however they are split, the same requests and bodies are read and the
// same failure is found, within the limits. What a request says is then taken apart as the routes
// do. The first byte of the input chooses the split.

#include "http.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "access.h"
#include "download.h"
#include "http_body.h"
#include "require.h"
#include "upload.h"
#include "websocket.h"

using namespace herald;

namespace {

void require_clean(const Response& response) {
    for (const auto& [name, value] : response.headers)
        require(value.find_first_of("\r\n") == std::string::npos);
}

void look_at_transfer(const Request& request) {
    const Payload payload{.id = "x",
                          .bytes = 1000,
                          .sha256 = std::string(32, 'x'),
                          .content_type = std::string(request.header("content-type").value_or("")),
                          .compression = "gzip",
                          .stored_bytes = 500,
                          .chunks = 2};
    const Selection selection = select(request, payload);
    require(selection.from + selection.length <= payload.bytes);
    require(selection.status != 206 || selection.length > 0);
    require_clean(head_of(selection, payload));
    if (request.method != Method::kPost && request.method != Method::kPatch) return;
    const auto target = parse_target(request.url);
    if (!target) return;
    const UploadHead head = read_upload_head(request, *target);
    require(head.upload.has_value() != (head.refusal.status >= 400));
    if (head.upload) require(head.upload->sha256.empty() || head.upload->sha256.size() == 32);
    require_clean(head.refusal);
}

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
    look_at_transfer(request);
    return result;
}

// Reads one body from the front of `bytes`; false if it ends in a failure or is not all there.
bool read_body(const Request& request, std::string_view& bytes, std::size_t piece,
               std::string& result) {
    HttpBody body(request.body_length);
    std::size_t total = 0;
    while (!body.complete()) {
        if (bytes.empty()) return false;
        std::string_view content;
        const std::size_t used = body.feed(bytes.substr(0, piece), piece, content);
        require(used > 0 && used <= std::min(piece, bytes.size()));
        require(content.size() <= used);
        bytes.remove_prefix(used);
        result += content;
        total += content.size();
        if (body.failure().status != 0) {
            result += std::to_string(body.failure().status);
            return false;
        }
    }
    require(!request.body_length || *request.body_length == total);
    return true;
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
        if (reader.request().has_body() && !read_body(reader.request(), bytes, piece, result))
            return result;
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
