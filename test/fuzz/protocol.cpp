// Client frames: any text is refused or understood, and what is passed on to the database is a JSON
// object without op and id.

#include "protocol.h"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/topic.h"
#include "require.h"
#include "utf8.h"

using namespace herald;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    Utf8Check check;
    if (!check.feed(text) || !check.complete()) return 0;  // the WebSocket lets only UTF-8 pass

    const auto parsed = parse_client_frame(text, "sender \"quoted\"");
    if (const auto* refusal = std::get_if<Refusal>(&parsed)) {
        require(!refusal->error.code.empty() && !refusal->error.message.empty());
        require(nlohmann::json::accept(err_frame(refusal->id, refusal->error)));
        return 0;
    }
    const auto& frame = std::get<ClientFrame>(parsed);
    if (const auto* sub = std::get_if<SubRequest>(&frame.request)) {
        require(check_pattern(sub->topic).ok());
        require(!sub->after || !sub->last);
        require(nlohmann::json::accept(ok_sub_frame(frame.id, sub->topic, 1)));
    } else if (const auto* send = std::get_if<SendRequest>(&frame.request)) {
        const auto message = nlohmann::json::parse(send->message);
        require(message.is_object() && !message.contains("op") && !message.contains("id"));
        require(message.contains("sender"));
    }
    return 0;
}
