#include "postgres_target.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace herald {
namespace {

// What the environment of the test run says must not matter.
class PostgresTarget : public ::testing::Test {
  protected:
    void SetUp() override {
        for (const char* name : {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE",
                                 "PGCONNECT_TIMEOUT", "PGAPPNAME", "PGUSER", "PGSERVICEFILE"}) {
            unsetenv(name);
        }
    }
    void TearDown() override { SetUp(); }

    static PgTarget good(const std::string& conninfo) {
        auto target = PgTarget::parse(conninfo);
        EXPECT_TRUE(target) << (target ? "" : target.error().message);
        return target.value();
    }
    static Error bad(const std::string& conninfo) {
        auto target = PgTarget::parse(conninfo);
        EXPECT_FALSE(target) << conninfo;
        return target ? Error{} : target.error();
    }
};

TEST_F(PostgresTarget, BadStringsAreNamed) {
    EXPECT_EQ(bad("mydb").code, "invalid");
    EXPECT_NE(bad("mydb").message.find("missing \"=\" after \"mydb\""), std::string::npos);
    EXPECT_NE(bad("colour=red").message.find("colour"), std::string::npos);
    EXPECT_NE(bad("port=99999").message.find("99999"), std::string::npos);
    EXPECT_NE(bad("port=54x").message.find("54x"), std::string::npos);
    EXPECT_NE(bad("connect_timeout=soon").message.find("soon"), std::string::npos);
    EXPECT_NE(bad("host=a,b port=1,2,3").message.find("3 ports for 2 hosts"), std::string::npos);
    EXPECT_NE(bad("host=a,b hostaddr=::1").message.find("2 host names but 1"), std::string::npos);
}

TEST_F(PostgresTarget, OnlyNamesAreLookedUp) {
    const PgTarget target = good("host=db.example,/run/pg,@abstract,,10.0.0.1 port=5433");
    const std::vector<PgTarget::Host>& hosts = target.hosts();
    ASSERT_EQ(hosts.size(), 5u);
    EXPECT_TRUE(hosts[0].needs_lookup());
    EXPECT_FALSE(hosts[1].needs_lookup());
    EXPECT_FALSE(hosts[2].needs_lookup());
    EXPECT_FALSE(hosts[3].needs_lookup());
    EXPECT_EQ(hosts[4].port, "5433");
    EXPECT_FALSE(good("host=db.example hostaddr=10.0.0.1").hosts()[0].needs_lookup());
}

TEST_F(PostgresTarget, ExpandedHostsKeepTheirNamesAndPorts) {
    const PgTarget target = good("host=a,/run/pg port=1,2");
    const std::vector<PgTarget::Host> found = {{.name = "a", .address = "10.0.0.1", .port = "1"},
                                               {.name = "a", .address = "::1", .port = "1"},
                                               {.name = "/run/pg", .address = "", .port = "2"}};
    const auto parameters = target.parameters(found);
    EXPECT_EQ(parameters.at("host"), "a,a,/run/pg");
    EXPECT_EQ(parameters.at("hostaddr"), "10.0.0.1,::1,");
    EXPECT_EQ(parameters.at("port"), "1,1,2");
}

TEST_F(PostgresTarget, SocketNeedsNoAddress) {
    const PgTarget target = good("host=/run/pg dbname=bus");
    const auto parameters = target.parameters(target.hosts());
    EXPECT_EQ(parameters.at("host"), "/run/pg");
    EXPECT_FALSE(parameters.contains("hostaddr"));
}

TEST_F(PostgresTarget, DefaultsYieldToTheUserExceptForTheEncoding) {
    const auto plain = good("dbname=bus").parameters({});
    EXPECT_EQ(plain.at("fallback_application_name"), "herald-notifier");
    EXPECT_EQ(plain.at("keepalives_idle"), "10");
    EXPECT_EQ(plain.at("tcp_user_timeout"), "15000");
    const auto own =
        good("keepalives_idle=60 tcp_user_timeout=1 client_encoding=LATIN1").parameters({});
    EXPECT_EQ(own.at("keepalives_idle"), "60");
    EXPECT_EQ(own.at("tcp_user_timeout"), "1");
    EXPECT_EQ(own.at("client_encoding"), "UTF8");
}

TEST_F(PostgresTarget, ConnectTimeoutIsInSeconds) {
    EXPECT_EQ(good("").connect_timeout_ms(), 10'000);
    EXPECT_EQ(good("connect_timeout=0").connect_timeout_ms(), 10'000);
    EXPECT_EQ(good("postgresql://h/d?connect_timeout=3").connect_timeout_ms(), 3000);
}

TEST_F(PostgresTarget, EnvironmentFillsWhatTheStringLeavesOpen) {
    setenv("PGHOST", "from.env", 1);
    setenv("PGPORT", "6000", 1);
    EXPECT_EQ(good("dbname=bus").hosts()[0].name, "from.env");
    EXPECT_EQ(good("dbname=bus").hosts()[0].port, "6000");
    EXPECT_EQ(good("host=own").hosts()[0].name, "own");
}

TEST_F(PostgresTarget, DescriptionHasNoSecret) {
    const std::string text = good("postgresql://me:secret@db:5433/bus").describe();
    EXPECT_EQ(text, "database \"bus\" at db:5433");
}

}  // namespace
}  // namespace herald
