// HTTP: requests from bytes, responses to bytes. No sockets here.
//
// Limits: head 16 KiB (431), URL 8 KiB (414); codings of the body other than chunked (501) and
// anything malformed (400) end the connection. How long a head may take is the connection's
// business (408), what to do with a method or a body its handler's. A body is read by HttpBody.
#pragma once

#include <http_parser.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "frame.h"
#include "result.h"

namespace herald {

enum class Method : std::uint8_t { kGet, kHead, kPost, kPatch, kDelete, kOther };

struct Request {
    Method method = Method::kGet;
    bool head_only = false;  // HEAD
    // Of the body that follows; 0: there is none, nullopt: it comes in chunks.
    std::optional<std::uint64_t> body_length = 0;
    bool keep_alive = false;
    bool http_1_1 = false;
    std::string url;
    std::vector<std::pair<std::string, std::string>> headers;  // names in lower case

    // The value of a header that comes at most once; nullopt if absent.
    std::optional<std::string_view> header(std::string_view lower_case_name) const;
    std::size_t count(std::string_view lower_case_name) const;
    bool has_body() const { return body_length != 0U; }
    // Whether a comma-separated header has the token (ignoring case), in any of its lines.
    bool has_token(std::string_view lower_case_name, std::string_view token) const;
};

struct HttpFailure {
    int status = 0;  // 0: none
    const char* why = "";
};

// Reads the heads of one request after the other from a stream of bytes.
class HttpReader {
  public:
    static constexpr std::size_t kMaxHead = 16 * 1024;
    static constexpr std::size_t kMaxUrl = 8 * 1024;

    HttpReader() { next(); }
    HttpReader(const HttpReader&) = delete;
    HttpReader& operator=(const HttpReader&) = delete;

    // Takes bytes up to the end of one head; returns how many. Take no more after complete() or
    // failure() until next().
    std::size_t feed(std::string_view bytes);
    bool complete() const { return complete_; }
    const HttpFailure& failure() const { return failure_; }
    // Whether a part of a request has come.
    bool begun() const { return head_bytes_ > 0; }
    const Request& request() const { return request_; }
    // Ready for the next request.
    void next();

  private:
    static const http_parser_settings& settings();
    int fail(int status, const char* why);
    int take_url(std::string_view part);
    int take_name(std::string_view part);
    int take_value(std::string_view part);
    int head_done();
    int find_body();

    http_parser parser_{};
    Request request_;
    HttpFailure failure_;
    std::size_t head_bytes_ = 0;
    bool in_value_ = false;
    bool complete_ = false;
};

struct Response {
    int status = 200;
    std::string body;
    std::string_view type = "application/json";
    std::vector<std::pair<std::string_view, std::string>> headers;  // beside the usual ones
};

// {"error":{"code":…,"message":…}}, with Retry-After if the error says when to try again.
Response error_response(int status, std::string_view code, std::string_view message);
Response error_response(const Error& error);

// The whole response. `head_only`: Content-Length of the body, but not the body.
Frame encode_response(const Response& response, bool keep_alive, bool head_only);
// The head of a response whose body, of this length, follows; its own body is left out.
Frame encode_head(const Response& response, bool keep_alive, std::uint64_t length);
// "Not Found" for 404 and so on.
std::string_view status_text(int status);

// %41 → A; nullopt if malformed or not valid UTF-8. `plus_is_space` for query strings.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

// A request target, split: path still encoded, query decoded.
struct Target {
    std::string_view path;
    std::vector<std::pair<std::string, std::string>> query;

    // The value of the first parameter with this name.
    const std::string* parameter(std::string_view name) const;
};
// nullopt if it is not a path or the query is malformed.
std::optional<Target> parse_target(std::string_view url);

bool equal_ignoring_case(std::string_view a, std::string_view b);

}  // namespace herald
