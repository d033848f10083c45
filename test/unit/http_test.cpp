#include "http.h"

#include <gtest/gtest.h>

#include <string>

#include "random.h"

namespace herald {
namespace {

const std::string kGet = "GET /x?y=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";

int failure_of(const std::string& bytes) {
    HttpReader reader;
    reader.feed(bytes);
    EXPECT_FALSE(reader.complete());
    return reader.failure().status;
}

std::string get_with(const std::string& header) {
    return "GET / HTTP/1.1\r\nHost: a\r\n" + header + "\r\n\r\n";
}

TEST(Http, ReadsARequest) {
    HttpReader reader;
    EXPECT_FALSE(reader.begun());
    EXPECT_EQ(reader.feed(get_with("X-Two: a, B\r\nx-two:c ")),
              get_with("X-Two: a, B\r\nx-two:c ").size());
    ASSERT_TRUE(reader.complete());
    const Request& request = reader.request();
    EXPECT_EQ(request.url, "/");
    EXPECT_TRUE(request.keep_alive);
    EXPECT_TRUE(request.http_1_1);
    EXPECT_FALSE(request.head_only);
    EXPECT_EQ(request.header("host"), "a");
    EXPECT_EQ(request.header("nothing"), std::nullopt);
    EXPECT_EQ(request.count("x-two"), 2U);
    EXPECT_TRUE(request.has_token("x-two", "b"));
    EXPECT_TRUE(request.has_token("x-two", "C"));
    EXPECT_FALSE(request.has_token("x-two", "a, B"));
}

TEST(Http, StopsAtTheEndOfEachRequest) {
    HttpReader reader;
    const std::string two = kGet + "HEAD /second HTTP/1.0\r\nHost: a\r\n\r\n";
    EXPECT_EQ(reader.feed(two), kGet.size());
    ASSERT_TRUE(reader.complete());
    EXPECT_EQ(reader.request().url, "/x?y=1");
    reader.next();
    reader.feed(std::string_view(two).substr(kGet.size()));
    ASSERT_TRUE(reader.complete());
    EXPECT_EQ(reader.request().url, "/second");
    EXPECT_TRUE(reader.request().head_only);
    EXPECT_FALSE(reader.request().http_1_1);
    EXPECT_FALSE(reader.request().keep_alive);
}

TEST(Http, UpgradeLeavesTheRestAlone) {
    HttpReader reader;
    const std::string head = get_with("Connection: Upgrade\r\nUpgrade: websocket");
    EXPECT_EQ(reader.feed(head + "\x81\x80"), head.size());
    EXPECT_TRUE(reader.complete());
}

TEST(Http, ByteByByteIsTheSame) {
    HttpReader reader;
    for (const char c : get_with("Accept: */*")) {
        ASSERT_FALSE(reader.complete());
        reader.feed({&c, 1});
        ASSERT_EQ(reader.failure().status, 0);
        ASSERT_TRUE(reader.begun());
    }
    ASSERT_TRUE(reader.complete());
    EXPECT_EQ(reader.request().header("accept"), "*/*");
}

TEST(Http, Limits) {
    const std::string fits(HttpReader::kMaxUrl - 1, 'a');
    EXPECT_EQ(failure_of("GET /" + fits + "a HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
    HttpReader long_url;
    long_url.feed("GET /" + fits + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TRUE(long_url.complete());

    const std::string start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    const std::string end = "\r\n\r\n";
    const std::string value(HttpReader::kMaxHead - start.size() - end.size(), 'v');
    HttpReader long_head;
    long_head.feed(start + value + end);
    EXPECT_TRUE(long_head.complete());
    EXPECT_EQ(failure_of(start + value + "v" + end), 431);
    EXPECT_EQ(failure_of(start + std::string(1 << 20, 'v')), 431);
}

TEST(Http, Refusals) {
    EXPECT_EQ(failure_of("NONSENSE\r\n\r\n"), 400);
    EXPECT_EQ(failure_of("GET / HTTP/1.1\r\n\r\n"), 400) << "no Host";
    EXPECT_EQ(failure_of(get_with("Host: b")), 400) << "two Hosts";
    EXPECT_EQ(failure_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 400);
    EXPECT_EQ(failure_of("\x16\x03\x01\x02"), 400) << "TLS";
    EXPECT_EQ(failure_of(get_with("Content-Length: x")), 400);
    EXPECT_EQ(failure_of(get_with("Content-Length: -1")), 400);
    EXPECT_EQ(failure_of(get_with("Content-Length: 5, 5")), 400);
    EXPECT_EQ(failure_of(get_with("Content-Length: 99999999999999999999")), 400);
    EXPECT_EQ(failure_of(get_with("Content-Length: 5\r\nContent-Length: 5")), 400);
    EXPECT_EQ(failure_of(get_with("Content-Length: 5\r\nTransfer-Encoding: chunked")), 400);
    EXPECT_EQ(failure_of(get_with("Transfer-Encoding: chunked\r\nContent-Length: 5")), 400);
    EXPECT_EQ(failure_of("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    for (const char* coding : {"gzip", "gzip, chunked", "xchunked", "chunked, identity",
                               "chunked\r\nTransfer-Encoding: chunked"})
        EXPECT_EQ(failure_of(get_with(std::string("Transfer-Encoding: ") + coding)), 501) << coding;
}

TEST(Http, MethodsAndBodies) {
    const auto request = [](const std::string& head) {
        HttpReader reader;
        EXPECT_EQ(reader.feed(head + "body"), head.size()) << "the body is not the head's business";
        EXPECT_TRUE(reader.complete()) << head;
        return reader.request();
    };
    const Request post =
        request("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n");
    EXPECT_EQ(post.method, Method::kPost);
    EXPECT_EQ(post.body_length, 999999999999999999U);
    EXPECT_TRUE(post.has_body());
    const Request patch =
        request("PATCH /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
    EXPECT_EQ(patch.method, Method::kPatch);
    EXPECT_EQ(patch.body_length, std::nullopt);
    EXPECT_TRUE(patch.has_body());
    const Request empty = request("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    EXPECT_FALSE(empty.has_body());
    EXPECT_FALSE(request(kGet).has_body());
    EXPECT_EQ(request("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").method, Method::kDelete);
    EXPECT_EQ(request("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").method, Method::kOther);
}

TEST(Http, Responses) {
    Response response{.status = 404, .body = "{}", .headers = {}};
    response.headers.emplace_back("X-Own", "1");
    EXPECT_EQ(encode_response(response, true, false).wire(),
              "HTTP/1.1 404 Not Found\r\nX-Own: 1\r\nContent-Type: application/json\r\n"
              "Content-Length: 2\r\nX-Content-Type-Options: nosniff\r\n"
              "Connection: keep-alive\r\n\r\n{}");
    EXPECT_TRUE(encode_response(response, false, true)
                    .wire()
                    .ends_with("Content-Length: 2\r\nX-Content-Type-Options: "
                               "nosniff\r\nConnection: close\r\n\r\n"));
}

TEST(Http, ErrorsBecomeStatusCodes) {
    const auto status = [](const char* code) {
        return error_response({.code = code,
                               .message = "m",
                               .hint = {},
                               .sqlstate = {},
                               .field = {},
                               .retry_ms = 1500});
    };
    EXPECT_EQ(status("invalid").status, 400);
    EXPECT_EQ(status("rejected").status, 400);
    EXPECT_EQ(status("unavailable").status, 503);
    EXPECT_EQ(status("internal").status, 500);
    EXPECT_EQ(status("unavailable").headers[0].second, "2");
    EXPECT_EQ(status("invalid").body, R"({"error":{"code":"invalid","message":"m"}})");
}

TEST(Http, PercentDecoding) {
    EXPECT_EQ(percent_decode("agent%3A42+%2f", false), "agent:42+/");
    EXPECT_EQ(percent_decode("a+b", true), "a b");
    EXPECT_EQ(percent_decode("%E2%82%ac", false), "€");
    for (const char* bad : {"%", "%4", "%zz", "%FF", "%E2%82", "a%"})
        EXPECT_EQ(percent_decode(bad, false), std::nullopt) << bad;
}

TEST(Http, Targets) {
    const auto target = parse_target("/a/b?x=1&y=a%20b&x=2&&flag#rest");
    ASSERT_TRUE(target);
    EXPECT_EQ(target->path, "/a/b");
    EXPECT_EQ(*target->parameter("x"), "1");
    EXPECT_EQ(*target->parameter("y"), "a b");
    EXPECT_EQ(*target->parameter("flag"), "");
    EXPECT_EQ(target->parameter("z"), nullptr);
    EXPECT_FALSE(parse_target("http://a/b"));
    EXPECT_FALSE(parse_target("*"));
    EXPECT_FALSE(parse_target("/a?x=%"));
}

TEST(Http, RandomBytesAreHarmless) {
    test::Random random("http bytes");
    for (int run = 0; run < 2000; ++run) {
        HttpReader reader;
        std::string bytes = kGet;
        for (auto changes = random.number(1, 4); changes > 0; --changes)
            bytes[static_cast<std::size_t>(random.number(0, static_cast<int>(bytes.size()) - 1))] =
                static_cast<char>(random.number(0, 255));
        std::string_view rest = bytes;
        while (!rest.empty() && reader.failure().status == 0 && !reader.complete())
            rest.remove_prefix(
                reader.feed(rest.substr(0, static_cast<std::size_t>(random.number(1, 9)))));
        if (reader.complete()) {
            EXPECT_EQ(reader.request().count("host"), 1U);
        }
    }
}

}  // namespace
}  // namespace herald
