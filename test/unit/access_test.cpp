#include "access.h"

#include <gtest/gtest.h>

namespace herald {
namespace {

int status(const Access& access, const std::string& host, const char* origin = nullptr) {
    Request request;
    request.headers.emplace_back("host", host);
    if (origin != nullptr) request.headers.emplace_back("origin", origin);
    const auto refusal = access.refuse(request);
    return refusal ? refusal->status : 200;
}

TEST(Access, OnlyLoopbackNames) {
    const Access access({}, {});
    for (const char* host : {"localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:80",
                             "127.0.0.1", "[::1]", "[::1]:8080"})
        EXPECT_EQ(status(access, host), 200) << host;
    for (const char* host : {"example.com", "example.com:8080", "localhost.example.com", "",
                             "127.0.0.2", "[::2]:80", "localhost:80x", "::1", "[::1"})
        EXPECT_EQ(status(access, host), 421) << host;
}

TEST(Access, AllowedHosts) {
    const Access access({}, {"bus.example", "other.example:81"});
    EXPECT_EQ(status(access, "bus.example:8080"), 200);
    EXPECT_EQ(status(access, "BUS.example"), 200);
    EXPECT_EQ(status(access, "other.example:81"), 200);
    EXPECT_EQ(status(access, "other.example:82"), 421);
}

TEST(Access, OriginIsOurOwnOrAllowed) {
    const Access access({"https://app.example"}, {});
    EXPECT_EQ(status(access, "localhost:8080", "http://localhost:8080"), 200);
    EXPECT_EQ(status(access, "localhost", "http://localhost:80"), 200);
    EXPECT_EQ(status(access, "localhost:443", "https://localhost"), 200);
    EXPECT_EQ(status(access, "localhost:8080", "https://app.example"), 200);
    for (const char* origin :
         {"http://localhost:8081", "http://127.0.0.1:8080", "null", "", "http://evil.example",
          "https://app.example.evil.example", "ftp://localhost:8080"})
        EXPECT_EQ(status(access, "localhost:8080", origin), 403) << origin;
}

TEST(Access, TwoOriginsAreRefused) {
    const Access access({}, {});
    Request request;
    request.headers = {
        {"host", "localhost"}, {"origin", "http://localhost"}, {"origin", "http://localhost"}};
    EXPECT_EQ(access.refuse(request)->status, 403);
}

}  // namespace
}  // namespace herald
