// JSON string escaping (RFC 8259, section 7): quotes, backslashes and control characters, nothing
// else, so that text stays readable and its bytes are the same everywhere.
#pragma once

#include <cstddef>
#include <string_view>

namespace herald {

// A sink takes the text piece by piece: `void append(std::string_view)`.
template <typename Sink>
void write_json_string(Sink& sink, std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    sink.append(std::string_view("\""));
    std::size_t plain = 0;  // start of the run that needs no escape
    for (std::size_t at = 0; at < text.size(); ++at) {
        const auto byte = static_cast<unsigned char>(text[at]);
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        sink.append(text.substr(plain, at - plain));
        plain = at + 1;
        switch (byte) {
            case '"':
                sink.append(std::string_view("\\\""));
                break;
            case '\\':
                sink.append(std::string_view("\\\\"));
                break;
            case '\b':
                sink.append(std::string_view("\\b"));
                break;
            case '\f':
                sink.append(std::string_view("\\f"));
                break;
            case '\n':
                sink.append(std::string_view("\\n"));
                break;
            case '\r':
                sink.append(std::string_view("\\r"));
                break;
            case '\t':
                sink.append(std::string_view("\\t"));
                break;
            default: {
                const char escaped[] = {'\\', 'u', '0', '0', kHex[byte >> 4U], kHex[byte & 15U]};
                sink.append(std::string_view(escaped, sizeof escaped));
            }
        }
    }
    sink.append(text.substr(plain));
    sink.append(std::string_view("\""));
}

}  // namespace herald
