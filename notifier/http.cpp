#include "http.h"

#include <algorithm>

#include "core/json_escape.h"
#include "utf8.h"

namespace herald {

namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char l = lower(c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

Method method_of(unsigned method) {
    switch (method) {
        case HTTP_GET:
            return Method::kGet;
        case HTTP_HEAD:
            return Method::kHead;
        case HTTP_POST:
            return Method::kPost;
        case HTTP_PATCH:
            return Method::kPatch;
        case HTTP_DELETE:
            return Method::kDelete;
        default:
            return Method::kOther;
    }
}

// Head of a response, without the empty line; `length`: nullopt if none is to be told.
std::string head_of(const Response& response, bool keep_alive,
                    std::optional<std::uint64_t> length) {
    std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
    head.append(status_text(response.status)).append("\r\n");
    const auto add = [&](std::string_view name, std::string_view value) {
        head.append(name).append(": ").append(value).append("\r\n");
    };
    for (const auto& [name, value] : response.headers) add(name, value);
    if (response.status == 101) return head;
    if (!response.type.empty()) add("Content-Type", response.type);
    if (length) add("Content-Length", std::to_string(*length));
    add("X-Content-Type-Options", "nosniff");
    add("Connection", keep_alive ? "keep-alive" : "close");
    return head;
}

HttpReader& reader_of(http_parser* parser) {
    return *static_cast<HttpReader*>(parser->data);
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return lower(x) == lower(y); });
}

std::optional<std::string_view> Request::header(std::string_view lower_case_name) const {
    for (const auto& [name, value] : headers)
        if (name == lower_case_name) return value;
    return std::nullopt;
}

std::size_t Request::count(std::string_view lower_case_name) const {
    return static_cast<std::size_t>(
        std::count_if(headers.begin(), headers.end(),
                      [&](const auto& header) { return header.first == lower_case_name; }));
}

bool Request::has_token(std::string_view lower_case_name, std::string_view token) const {
    for (const auto& [name, value] : headers) {
        if (name != lower_case_name) continue;
        std::string_view rest = value;
        while (!rest.empty()) {
            const std::size_t comma = rest.find(',');
            if (equal_ignoring_case(trim(rest.substr(0, comma)), token)) return true;
            if (comma == std::string_view::npos) break;
            rest.remove_prefix(comma + 1);
        }
    }
    return false;
}

const http_parser_settings& HttpReader::settings() {
    static const http_parser_settings kSettings = [] {
        http_parser_settings result;
        http_parser_settings_init(&result);
        result.on_url = [](http_parser* parser, const char* at, std::size_t length) {
            return reader_of(parser).take_url({at, length});
        };
        result.on_header_field = [](http_parser* parser, const char* at, std::size_t length) {
            return reader_of(parser).take_name({at, length});
        };
        result.on_header_value = [](http_parser* parser, const char* at, std::size_t length) {
            return reader_of(parser).take_value({at, length});
        };
        result.on_headers_complete = [](http_parser* parser) {
            return reader_of(parser).head_done();
        };
        result.on_message_complete = [](http_parser* parser) {
            // Without the pause the parser would run on into the next request.
            reader_of(parser).complete_ = true;
            http_parser_pause(parser, 1);
            return 0;
        };
        return result;
    }();
    return kSettings;
}

void HttpReader::next() {
    http_parser_init(&parser_, HTTP_REQUEST);
    parser_.data = this;
    request_ = Request();
    failure_ = HttpFailure();
    head_bytes_ = 0;
    in_value_ = false;
    complete_ = false;
}

std::size_t HttpReader::feed(std::string_view bytes) {
    const std::string_view part = bytes.substr(0, kMaxHead - head_bytes_);
    const std::size_t used = http_parser_execute(&parser_, &settings(), part.data(), part.size());
    head_bytes_ += used;
    if (failure_.status == 0 && !complete_) {
        if (HTTP_PARSER_ERRNO(&parser_) != HPE_OK) {
            fail(400, http_errno_description(HTTP_PARSER_ERRNO(&parser_)));
        } else if (head_bytes_ == kMaxHead) {
            fail(431, "the request's head is longer than 16 KiB");
        }
    }
    return used;
}

int HttpReader::fail(int status, const char* why) {
    failure_ = {status, why};
    return -1;
}

int HttpReader::take_url(std::string_view part) {
    if (request_.url.size() + part.size() > kMaxUrl)
        return fail(414, "the request's URL is longer than 8 KiB");
    request_.url.append(part);
    return 0;
}

int HttpReader::take_name(std::string_view part) {
    if (in_value_ || request_.headers.empty()) request_.headers.emplace_back();
    in_value_ = false;
    std::string& name = request_.headers.back().first;
    std::transform(part.begin(), part.end(), std::back_inserter(name), lower);
    return 0;
}

int HttpReader::take_value(std::string_view part) {
    in_value_ = true;
    request_.headers.back().second.append(part);
    return 0;
}

int HttpReader::head_done() {
    request_.http_1_1 =
        parser_.http_major > 1 || (parser_.http_major == 1 && parser_.http_minor >= 1);
    request_.keep_alive = http_should_keep_alive(&parser_) != 0;
    request_.method = method_of(parser_.method);
    request_.head_only = request_.method == Method::kHead;
    if (parser_.http_major != 1) return fail(400, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    if (request_.count("host") != 1) return fail(400, "exactly one Host header is needed");
    return find_body();
}

// The parser ends with the head (1): bodies are HttpBody's, which is stricter about chunks.
int HttpReader::find_body() {
    const std::size_t codings = request_.count("transfer-encoding");
    const std::size_t lengths = request_.count("content-length");
    if (codings == 0) {
        if (lengths > 1) return fail(400, "there is more than one Content-Length");
        request_.body_length = lengths == 0 ? 0 : parser_.content_length;
        return 1;
    }
    // Somebody before us may have gone by the other one: where this request ends is not certain.
    if (lengths > 0) return fail(400, "Content-Length and Transfer-Encoding exclude each other");
    if (!request_.http_1_1) return fail(400, "HTTP/1.0 has no Transfer-Encoding");
    if (codings > 1 || !equal_ignoring_case(trim(*request_.header("transfer-encoding")), "chunked"))
        return fail(501, "the only Transfer-Encoding known here is chunked");
    request_.body_length = std::nullopt;
    return 1;
}

std::string_view status_text(int status) {
    switch (status) {
#define HERALD_STATUS(number, name, text) \
    case number:                          \
        return #text;
        HTTP_STATUS_MAP(HERALD_STATUS)
#undef HERALD_STATUS
        default:
            return "Unknown";
    }
}

Response error_response(int status, std::string_view code, std::string_view message) {
    Response response{.status = status, .body = R"({"error":{"code":)", .headers = {}};
    write_json_string(response.body, code);
    response.body += R"(,"message":)";
    write_json_string(response.body, message);
    response.body += "}}";
    return response;
}

Response error_response(const Error& error) {
    int status = 500;
    if (error.code == "invalid" || error.code == "rejected") status = 400;
    if (error.code == "limit") status = 413;
    if (error.code == "not_found") status = 404;
    if (error.code == "offset") status = 409;
    if (error.code == "digest") status = 422;
    if (error.sqlstate == "42501") status = 403;
    if (error.sqlstate == "55000") status = 409;
    if (error.code == "unavailable") status = 503;
    Response response = error_response(status, error.code, error.message);
    if (error.retry_ms > 0)
        response.headers.emplace_back("Retry-After", std::to_string((error.retry_ms + 999) / 1000));
    return response;
}

Frame encode_response(const Response& response, bool keep_alive, bool head_only) {
    const bool bodiless = response.status == 304 || response.status == 204;
    std::string head = head_of(response, keep_alive,
                               bodiless ? std::nullopt : std::optional(response.body.size()));
    head.append("\r\n");
    return Frame::raw(head, head_only ? std::string_view{} : response.body);
}

Frame encode_head(const Response& response, bool keep_alive, std::uint64_t length) {
    return Frame::raw(head_of(response, keep_alive, length).append("\r\n"));
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
    std::string result;
    result.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%') {
            if (i + 2 >= text.size()) return std::nullopt;
            const int high = hex_value(text[i + 1]);
            const int low = hex_value(text[i + 2]);
            if (high < 0 || low < 0) return std::nullopt;
            result += static_cast<char>(high * 16 + low);
            i += 2;
        } else {
            result += plus_is_space && text[i] == '+' ? ' ' : text[i];
        }
    }
    Utf8Check check;
    if (!check.feed(result) || !check.complete()) return std::nullopt;
    return result;
}

const std::string* Target::parameter(std::string_view name) const {
    for (const auto& [key, value] : query)
        if (key == name) return &value;
    return nullptr;
}

std::optional<Target> parse_target(std::string_view url) {
    if (url.empty() || url.front() != '/') return std::nullopt;
    url = url.substr(0, url.find('#'));
    const std::size_t mark = url.find('?');
    Target target{.path = url.substr(0, mark), .query = {}};
    std::string_view rest = mark == std::string_view::npos ? "" : url.substr(mark + 1);
    while (!rest.empty()) {
        const std::size_t end = rest.find('&');
        const std::string_view pair = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        if (pair.empty()) continue;
        const std::size_t equals = pair.find('=');
        auto key = percent_decode(pair.substr(0, equals), true);
        auto value = percent_decode(
            equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1), true);
        if (!key || !value) return std::nullopt;
        target.query.emplace_back(std::move(*key), std::move(*value));
    }
    return target;
}

}  // namespace herald
