// HTTP addresses, the limits of connections, and the end, over real sockets.

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "stage.h"

namespace herald::test {
namespace {

using nlohmann::json;

std::string get(const std::string& target, const std::string& headers = "Connection: close\r\n") {
    return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

// The whole answer to one request on a connection of its own.
std::string fetch(Stage& stage, const std::string& request) {
    Client client(stage);
    client.send_bytes(request);
    EXPECT_TRUE(client.until_eof());
    return client.bytes;
}

int status_of(const std::string& response) {
    return response.size() < 12 ? 0 : std::stoi(response.substr(9, 3));
}

json body_of(const std::string& response) {
    return json::parse(response.substr(response.find("\r\n\r\n") + 4));
}

TEST(Server, Routes) {
    Stage stage;
    EXPECT_EQ(status_of(fetch(stage, get("/healthz"))), 200);
    EXPECT_EQ(status_of(fetch(stage, get("/readyz"))), 503);
    stage.start_feed();
    EXPECT_EQ(status_of(fetch(stage, get("/readyz"))), 200);
    stage.server().feed_connected(false);
    EXPECT_EQ(status_of(fetch(stage, get("/readyz"))), 503);
    EXPECT_EQ(status_of(fetch(stage, get("/nothing/here"))), 404);
    EXPECT_EQ(body_of(fetch(stage, get("/nothing")))["error"]["code"], "not_found");
    EXPECT_EQ(status_of(fetch(stage, get("/ws/connect"))), 426);
    EXPECT_EQ(status_of(fetch(stage, get("/%zz?%"))), 400);
}

TEST(Server, ThePageHasAStrictPolicy) {
    Stage stage;
    const std::string page = fetch(stage, get("/"));
    EXPECT_EQ(status_of(page), 200);
    EXPECT_NE(page.find("Content-Security-Policy: default-src 'none'"), std::string::npos);
    EXPECT_NE(page.find("X-Content-Type-Options: nosniff"), std::string::npos);
    EXPECT_NE(page.find("Content-Type: text/html; charset=utf-8"), std::string::npos);
    const std::size_t tag = page.find("ETag: ") + 6;
    const std::string etag = page.substr(tag, page.find("\r\n", tag) - tag);
    EXPECT_EQ(
        status_of(fetch(stage, get("/", "Connection: close\r\nIf-None-Match: " + etag + "\r\n"))),
        304);
}

TEST(Server, HostAndOriginAreChecked) {
    Stage stage;
    EXPECT_EQ(status_of(fetch(stage,
                              "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n"
                              "Connection: close\r\n\r\n")),
              421);
    EXPECT_EQ(status_of(fetch(stage, get("/ws/connect",
                                         "Origin: http://evil.example\r\n"
                                         "Connection: close\r\n"))),
              403);
}

TEST(Server, MalformedRequests) {
    Stage stage;
    EXPECT_EQ(status_of(fetch(stage, "NONSENSE\r\n\r\n")), 400);
    EXPECT_EQ(status_of(fetch(stage, get("/" + std::string(9000, 'a')))), 414);
    EXPECT_EQ(status_of(fetch(stage, get("/", "X: " + std::string(17'000, 'a') + "\r\n"))), 431);
    const std::string post = fetch(stage,
                                   "POST / HTTP/1.1\r\nHost: localhost\r\n"
                                   "Content-Length: 100000\r\n\r\n" +
                                       std::string(100'000, 'x'));
    EXPECT_EQ(status_of(post), 405);
    EXPECT_NE(post.find("Allow: GET, HEAD"), std::string::npos);
    EXPECT_EQ(status_of(fetch(stage, get("/", "Content-Length: 5\r\n") + "hello")), 413);
    EXPECT_EQ(status_of(fetch(stage,
                              "DELETE / HTTP/1.1\r\nHost: localhost\r\n"
                              "Connection: close\r\n\r\n")),
              405);
}

TEST(Server, SlowHeadTimesOut) {
    Stage stage([](Config& config) { config.head_timeout = 0.05; });
    EXPECT_EQ(status_of(fetch(stage, "GET / HTTP/1.1\r\nHost:")), 408);
    Client silent(stage);
    EXPECT_TRUE(silent.until_eof());
    EXPECT_EQ(silent.bytes, "");
}

TEST(Server, PipelinedRequestsAreAnsweredInOrder) {
    Stage stage;
    stage.start_feed();
    stage.publish("a");
    stage.bus.held = true;
    Client client(stage);
    client.send_bytes(get("/topics/a/messages", "") + get("/healthz", "") + get("/nothing", ""));
    ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
    client.send_bytes(get("/healthz"));
    for (int i = 0; i < 50; ++i) stage.turn();
    client.receive();
    EXPECT_EQ(client.bytes, "") << "the first answer has not come";
    stage.bus.held = false;
    ASSERT_TRUE(client.until_eof());
    std::vector<int> statuses;
    for (std::size_t at = 0; (at = client.bytes.find("HTTP/1.1 ", at)) != std::string::npos; ++at)
        statuses.push_back(std::stoi(client.bytes.substr(at + 9, 3)));
    EXPECT_EQ(statuses, (std::vector<int>{200, 200, 404, 200}));
}

TEST(Server, HalfClosedClientGetsItsAnswer) {
    Stage stage;
    stage.start_feed();
    stage.bus.held = true;
    Client client(stage);
    client.send_bytes(get("/topics/a/messages", ""));
    client.shut_sending();
    ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
    for (int i = 0; i < 50; ++i) stage.turn();
    stage.bus.held = false;
    ASSERT_TRUE(client.until_eof());
    EXPECT_EQ(status_of(client.bytes), 200);
}

TEST(Server, ManyAnswersToAClientThatDoesNotRead) {
    Stage stage([](Config& config) { config.max_buffer = 64 * 1024; });
    stage.start_feed();
    for (int i = 0; i < 50; ++i) stage.store("a", 0, 20'000);
    stage.feed();
    Client client(stage);
    constexpr int kRequests = 40;  // a megabyte each
    for (int i = 0; i < kRequests; ++i) client.send_bytes(get("/topics/a/messages", ""));
    for (int i = 0; i < 500; ++i) stage.turn();
    const Connection* connection = stage.server().listener().find(1);
    ASSERT_NE(connection, nullptr);
    EXPECT_LT(connection->buffered(), 2U * 1024 * 1024);
    std::size_t answers = 0;
    ASSERT_TRUE(client.until([&] {
        for (std::size_t at; (at = client.bytes.find("HTTP/1.1 200")) != std::string::npos;) {
            ++answers;
            client.bytes.erase(0, at + 1);
        }
        return answers == kRequests || client.eof;
    }));
    EXPECT_EQ(answers, static_cast<std::size_t>(kRequests));
}

TEST(Server, History) {
    Stage stage;
    stage.start_feed();
    for (int i = 0; i < 5; ++i) stage.publish("a:1");
    const json page = body_of(fetch(stage, get("/topics/a%3A*/messages?after=2&max=2")));
    ASSERT_EQ(page["messages"].size(), 2U);
    EXPECT_EQ(page["messages"][0], json::parse(stage.bus.log[2].envelope));
    EXPECT_EQ(page["pos"], 4);
    EXPECT_FALSE(page.contains("gap"));
    stage.bus.gap = Gap{2, "dropped"};
    EXPECT_EQ(body_of(fetch(stage, get("/topics/a:1/messages")))["gap"],
              json({{"to", 2}, {"why", "dropped"}}));
    for (const char* bad : {"/topics//messages", "/topics/a%5B/messages", "/topics/%FF/messages",
                            "/topics/a/messages?after=-1", "/topics/a/messages?after=x",
                            "/topics/a/messages?max=0", "/topics/a/messages?max=10001",
                            "/topics/a/messages?max=", "/topics/a/messages?after=1%20"})
        EXPECT_EQ(status_of(fetch(stage, get(bad))), 400) << bad;
    stage.bus.failure = Error{.code = "unavailable",
                              .message = "away",
                              .hint = {},
                              .sqlstate = {},
                              .field = {},
                              .retry_ms = 500};
    const std::string away = fetch(stage, get("/topics/a/messages"));
    EXPECT_EQ(status_of(away), 503);
    EXPECT_NE(away.find("Retry-After: 1\r\n"), std::string::npos);
}

TEST(Server, MessageById) {
    Stage stage;
    const std::string id = "01980000-0000-7000-8000-00000000000";
    EXPECT_EQ(body_of(fetch(stage, get("/messages/" + id + "1")))["id"], id + "1");
    EXPECT_EQ(status_of(fetch(stage, get("/messages/" + id + "2"))), 404);
    EXPECT_EQ(status_of(fetch(stage, get("/messages/nonsense"))), 400);
}

TEST(Server, Connections) {
    Stage stage;
    stage.start_feed();
    WebSocketClient client(stage, "?user=ann&agent=pm&workspace=w%201");
    client.ask({{"op", "sub"}, {"topic", "a:*"}});
    stage.publish("a:1");
    EXPECT_EQ(client.next()["pos"], 1);
    const json list = body_of(fetch(stage, get("/ws/connections")))["connections"];
    ASSERT_EQ(list.size(), 1U);
    json one = list[0];
    EXPECT_EQ(one["user"], "ann");
    EXPECT_EQ(one["agent"], "pm");
    EXPECT_EQ(one["workspace"], "w 1");
    EXPECT_EQ(one["subscriptions"], 1);
    EXPECT_EQ(one["sent"], 1);
    EXPECT_EQ(one["received"], 1);
    EXPECT_EQ(one["buffered"], 0);
    EXPECT_TRUE(one["remote"].get<std::string>().starts_with("127.0.0.1:"));
    one["topics"] = {"a:*"};
    const std::string address = "/ws/connections/" + one["id"].dump();
    EXPECT_EQ(body_of(fetch(stage, get(address))), one);
    EXPECT_EQ(status_of(fetch(stage, get("/ws/connections/999"))), 404);
    EXPECT_EQ(status_of(fetch(stage, get("/ws/connections/x"))), 404);
    const json stats = body_of(fetch(stage, get("/ws/stats")));
    EXPECT_EQ(stats["websockets"], 1);
    EXPECT_EQ(stats["subscriptions"], 1);
    EXPECT_EQ(stats["deliveries"], 1);
    EXPECT_EQ(stats["pos"], 1);
}

TEST(Server, LongNamesAreRefused) {
    Stage stage;
    EXPECT_EQ(status_of(fetch(stage, get("/ws/connect?user=" + std::string(201, 'a')))), 400);
}

TEST(Server, ConnectionsAreBounded) {
    Stage stage([](Config& config) { config.max_connections = 3; });
    stage.start_feed();
    std::vector<std::unique_ptr<WebSocketClient>> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(std::make_unique<WebSocketClient>(stage));
    const std::string refused = fetch(stage, get("/healthz"));
    EXPECT_EQ(status_of(refused), 503);
    EXPECT_NE(refused.find("Retry-After"), std::string::npos);
    clients.pop_back();
    ASSERT_TRUE(stage.until([&] { return stage.server().listener().size() == 2; }));
    EXPECT_EQ(status_of(fetch(stage, get("/healthz"))), 200);
}

TEST(Server, ResetSendsEverybodyAwayToStartAfresh) {
    Stage stage;
    stage.start_feed();
    stage.publish("a");
    WebSocketClient client(stage);
    client.ask({{"op", "sub"}, {"topic", "a"}});
    stage.server().feed_reset(0);
    EXPECT_EQ(client.until_closed(), 4010U);
    EXPECT_EQ(client.next()["code"], 4010);
}

TEST(Server, StopSaysByeAndAnswersWhatIsOnItsWay) {
    Stage stage;
    stage.start_feed();
    WebSocketClient client(stage);
    client.ask({{"op", "sub"}, {"topic", "a"}});
    Client asking(stage);
    stage.bus.held = true;
    asking.send_bytes(get("/topics/a/messages", ""));
    ASSERT_TRUE(asking.until([&] { return !stage.bus.waiting.empty(); }));
    stage.publish("a");
    bool stopped = false;
    stage.server().stop([&] { stopped = true; });
    stage.bus.held = false;
    EXPECT_EQ(client.until_closed(), 1001U);
    EXPECT_EQ(client.next()["pos"], 1) << "what was queued still goes out";
    const json bye = client.next();
    EXPECT_EQ(bye["op"], "bye");
    EXPECT_EQ(bye["code"], 1001);
    EXPECT_GE(bye["after_ms"], 0);
    EXPECT_LE(bye["after_ms"], 5000);
    ASSERT_TRUE(asking.until_eof());
    EXPECT_EQ(status_of(asking.bytes), 200);
    asking.shut_sending();
    client.shut_sending();
    EXPECT_TRUE(stage.until([&] { return stopped; }));
    stage.assume_stopped();
}

TEST(Server, TellsWhenItIsReady) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    Stage stage([&](Config& config) { config.ready_fd = pipe_ends[1]; });
    stage.start_feed();
    char line[64] = "";
    const ssize_t length = read(pipe_ends[0], line, sizeof line);
    EXPECT_EQ(std::string(line, static_cast<std::size_t>(length)),
              "127.0.0.1:" + std::to_string(stage.port()) + "\n");
    EXPECT_EQ(read(pipe_ends[0], line, sizeof line), 0) << "closed after the line";
    close(pipe_ends[0]);
}

}  // namespace
}  // namespace herald::test
