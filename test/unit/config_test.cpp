#include "config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace herald {
namespace {

std::variant<Config, EndNow> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "herald-notifier");
    return read_config(static_cast<int>(arguments.size()), arguments.data());
}

Config good(std::vector<const char*> arguments) {
    arguments.push_back("--database=dbname=test");
    auto result = parse(std::move(arguments));
    if (const auto* end = std::get_if<EndNow>(&result)) {
        ADD_FAILURE() << end->text;
        return {};
    }
    return std::get<Config>(result);
}

std::string bad(std::vector<const char*> arguments) {
    auto result = parse(std::move(arguments));
    const auto* end = std::get_if<EndNow>(&result);
    if (end == nullptr) {
        ADD_FAILURE() << "accepted";
        return {};
    }
    EXPECT_EQ(end->code, 2);
    return end->text;
}

// A variable of the environment for the length of a test.
class Environment {
  public:
    Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
    ~Environment() { unsetenv(name_); }

  private:
    const char* name_;
};

class File {
  public:
    explicit File(const std::string& content) {
        const int descriptor = mkstemp(path_.data());
        close(descriptor);
        std::ofstream(path_) << content;
        argument_ = "--config=" + path_;
    }
    ~File() { unlink(path_.c_str()); }
    const char* argument() const { return argument_.c_str(); }

  private:
    std::string path_ = "/tmp/herald-config-XXXXXX";
    std::string argument_;
};

TEST(Config, Defaults) {
    const Config config = good({});
    EXPECT_EQ(config.database, "dbname=test");
    EXPECT_EQ(config.host, "127.0.0.1");
    EXPECT_EQ(config.port, 8080);
    EXPECT_EQ(config.max_frame, 1048576U);
    EXPECT_EQ(config.max_subscriptions, 1000U);
    EXPECT_EQ(config.max_transfers, 64U);
    EXPECT_EQ(config.ping_interval, 30);
    EXPECT_EQ(config.idle_timeout, 60);
    EXPECT_EQ(config.pool_size, 4);
    EXPECT_EQ(config.ready_fd, -1);
}

TEST(Config, Arguments) {
    const Config config =
        good({"--listen", "[::1]:0", "--max-buffer=2mb", "--ping-interval", "0.2", "--idle-timeout",
              "0.5", "--log-format", "json", "--allow-origin",
              "https://a.example,https://b.example", "--allow-origin", "https://c.example"});
    EXPECT_EQ(config.host, "::1");
    EXPECT_EQ(config.port, 0);
    EXPECT_EQ(config.max_buffer, 2U * 1024 * 1024);
    EXPECT_EQ(config.ping_interval, 0.2);
    EXPECT_EQ(config.log_format, LogFormat::kJson);
    EXPECT_EQ(config.allow_origin.size(), 3U);
}

TEST(Config, CommandLineOverEnvironmentOverFile) {
    const File file("pool-size = 5\nmax-connections = 7\nlog-level = \"debug\"\n");
    const Environment pool("HERALD_POOL_SIZE", "6");
    const Environment connections("HERALD_MAX_CONNECTIONS", "8");
    const Config config = good({file.argument(), "--max-connections=9"});
    EXPECT_EQ(config.log_level, "debug");
    EXPECT_EQ(config.pool_size, 6);
    EXPECT_EQ(config.max_connections, 9U);
}

TEST(Config, FileIsToml) {
    const File file(
        "# comment\n"
        "database = \"host=/run/postgresql dbname=app\"\n"
        "listen = \"127.0.0.1:9000\"\n"
        "allow-host = [\"bus.example\", \"bus2.example\"]\n");
    auto result = parse({file.argument()});
    ASSERT_TRUE(std::holds_alternative<Config>(result));
    const auto& config = std::get<Config>(result);
    EXPECT_EQ(config.database, "host=/run/postgresql dbname=app");
    EXPECT_EQ(config.port, 9000);
    EXPECT_EQ(config.allow_host, (std::vector<std::string>{"bus.example", "bus2.example"}));
}

TEST(Config, ClearErrors) {
    EXPECT_NE(bad({}).find("--database is missing"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--nonsense"}).find("--nonsense"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--pool-size=0"}).find("--pool-size"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--pool-size=many"}).find("--pool-size"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--max-frame=10"}).find("--max-frame"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--log-level=loud"}).find("--log-level"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--idle-timeout=5"}).find("--idle-timeout"), std::string::npos);
    EXPECT_NE(bad({"--database=x", "--config=/does/not/exist"}).find("/does/not/exist"),
              std::string::npos);
    const File unknown("nonsense = 1\n");
    EXPECT_NE(bad({"--database=x", unknown.argument()}).find("nonsense"), std::string::npos);
}

TEST(Config, ListensOnLoopbackOnlyAndSaysWhy) {
    for (const char* listen : {"0.0.0.0:80", "[::]:80", "192.168.1.1:80", "[2001:db8::1]:80"}) {
        const auto result = parse_listen(listen);
        ASSERT_FALSE(result) << listen;
        EXPECT_NE(result.error().message.find("not authenticated"), std::string::npos);
        EXPECT_NE(result.error().message.find(listen), std::string::npos);
    }
    EXPECT_TRUE(parse_listen("127.0.0.2:80"));
    EXPECT_EQ(parse_listen("localhost:80").value().host, "127.0.0.1");
    for (const char* listen : {"127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", ":80",
                               "example.com:80", "127.0.0.1:-1", "127.0.0.1:80 "})
        EXPECT_FALSE(parse_listen(listen)) << listen;
}

TEST(Config, HelpNamesEveryOption) {
    auto result = parse({"--help"});
    const auto& end = std::get<EndNow>(result);
    EXPECT_EQ(end.code, 0);
    for (const char* option :
         {"--database", "--listen", "--log-format", "--log-level", "--max-frame", "--max-buffer",
          "--max-connections", "--max-subscriptions", "--max-transfers", "--ping-interval",
          "--idle-timeout", "--pool-size", "--ring-bytes", "--allow-origin", "--allow-host",
          "--ready-fd", "--config"})
        EXPECT_NE(end.text.find(option), std::string::npos) << option;
}

}  // namespace
}  // namespace herald
