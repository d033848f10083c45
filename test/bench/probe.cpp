// One measuring client, so that both ways of hearing a message are timed by the same code.
//   probe drain CONNINFO CHANNEL
//       LISTENs and reads notifications until stdin ends, then prints how many came.
//   probe listen CONNINFO SQL TOPIC SAMPLES RATE SECONDS
//       sends, and hears by LISTEN on a second libpq connection
//   probe websocket CONNINFO SQL TOPIC SAMPLES RATE SECONDS PORT
//       sends, and hears by a WebSocket subscription
// The last two run SQL, which sends one message to TOPIC, RATE times a second at most, each time
// after the last message has arrived. They print microseconds from the call to the arrival:
// "p50 p99 max samples". They end early after so many SECONDS.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "socket.h"

namespace {

using Clock = std::chrono::steady_clock;
using Database = std::unique_ptr<PGconn, decltype(&PQfinish)>;
using Answer = std::unique_ptr<PGresult, decltype(&PQclear)>;

constexpr int kPatienceMs = 30000;

Database open_database(const char* conninfo) {
    Database database(PQconnectdb(conninfo), PQfinish);
    if (PQstatus(database.get()) != CONNECTION_OK) bench::fail(PQerrorMessage(database.get()));
    return database;
}

void execute(PGconn* database, const std::string& sql) {
    const Answer answer(PQexec(database, sql.c_str()), PQclear);
    const ExecStatusType status = PQresultStatus(answer.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        bench::fail(PQerrorMessage(database));
}

long take_notifications(PGconn* database) {
    if (PQconsumeInput(database) == 0) bench::fail(PQerrorMessage(database));
    long taken = 0;
    while (PGnotify* heard = PQnotifies(database)) {
        PQfreemem(heard);
        ++taken;
    }
    return taken;
}

int drain(const char* conninfo, const std::string& channel) {
    const Database database = open_database(conninfo);
    execute(database.get(), "LISTEN \"" + channel + "\"");
    std::puts("ready");
    std::fflush(stdout);
    long heard = 0;
    pollfd waits[2] = {{PQsocket(database.get()), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    while (waits[1].revents == 0) {
        if (::poll(waits, 2, -1) < 0) bench::fail_errno("poll");
        if (waits[0].revents != 0) heard += take_notifications(database.get());
    }
    std::printf("%ld\n", heard);
    return 0;
}

// Something that hears the probe's messages: its socket, and how many came since the last call.
class Ear {
  public:
    virtual ~Ear() = default;
    virtual int fd() const = 0;
    virtual long take() = 0;
};

class ListenEar : public Ear {
  public:
    ListenEar(const char* conninfo, const std::string& topic) : database_(open_database(conninfo)) {
        execute(database_.get(), "LISTEN \"" + topic + "\"");
    }
    int fd() const override { return PQsocket(database_.get()); }
    long take() override { return take_notifications(database_.get()); }

  private:
    Database database_;
};

class WebSocketEar : public Ear {
  public:
    WebSocketEar(int port, const std::string& topic)
        : fd_(bench::connect_websocket(port, "/ws/connect?user=probe")) {
        bench::write_all(fd_,
                         bench::text_frame(R"({"op":"sub","topic":")" + topic + R"(","id":1})"));
        while (take() == 0) {
        }
    }
    ~WebSocketEar() override { ::close(fd_); }
    WebSocketEar(const WebSocketEar&) = delete;
    WebSocketEar& operator=(const WebSocketEar&) = delete;
    int fd() const override { return fd_; }
    long take() override {
        char buffer[65536];
        const ssize_t n = ::read(fd_, buffer, sizeof buffer);
        if (n <= 0) bench::fail_errno("read from the WebSocket");
        long taken = 0;
        reader_.feed(buffer, static_cast<std::size_t>(n), [&](std::size_t) { ++taken; });
        return taken;
    }

  private:
    int fd_;
    bench::FrameReader reader_;
};

// True once the outstanding query has been answered; ends the program if it failed.
bool query_done(PGconn* database) {
    if (PQconsumeInput(database) == 0) bench::fail(PQerrorMessage(database));
    if (PQisBusy(database)) return false;
    while (PGresult* result = PQgetResult(database)) {
        const Answer answer(result, PQclear);
        if (PQresultStatus(result) != PGRES_TUPLES_OK) bench::fail(PQerrorMessage(database));
    }
    return true;
}

double send_and_hear(PGconn* database, Ear& ear) {
    const auto start = Clock::now();
    if (PQsendQueryPrepared(database, "send", 0, nullptr, nullptr, nullptr, 0) == 0)
        bench::fail(PQerrorMessage(database));
    double microseconds = -1;
    bool sent = false;
    while (!sent || microseconds < 0) {
        pollfd waits[2] = {{PQsocket(database), static_cast<short>(sent ? 0 : POLLIN), 0},
                           {ear.fd(), POLLIN, 0}};
        const int n = ::poll(waits, 2, kPatienceMs);
        if (n < 0) bench::fail_errno("poll");
        if (n == 0) bench::fail("a message did not arrive within 30 seconds");
        if (waits[1].revents != 0 && ear.take() > 0)
            microseconds = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
        if (waits[0].revents != 0) sent = query_done(database);
    }
    return microseconds;
}

struct Plan {
    const char* conninfo;
    const char* sql;
    const char* topic;
    long samples;
    double rate;     // a second
    double seconds;  // at most
};

Clock::duration duration_of(double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

int measure(const Plan& plan, Ear& ear) {
    if (plan.samples < 1 || plan.rate <= 0 || plan.seconds <= 0)
        bench::fail("SAMPLES, RATE and SECONDS are positive numbers");
    const Database database = open_database(plan.conninfo);
    const Answer prepared(PQprepare(database.get(), "send", plan.sql, 0, nullptr), PQclear);
    if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK)
        bench::fail(PQerrorMessage(database.get()));
    const long warm_up = std::min(plan.samples / 10 + 1, 20L);
    std::vector<double> heard;
    auto next = Clock::now();
    auto end = next;
    const auto pause = duration_of(1.0 / plan.rate);
    for (long i = -warm_up; i < plan.samples && (i <= 0 || next < end); ++i) {
        if (i == 0) end = next + duration_of(plan.seconds);
        std::this_thread::sleep_until(next);
        next = std::max(next + pause, Clock::now());
        const double microseconds = send_and_hear(database.get(), ear);
        if (i >= 0) heard.push_back(microseconds);
    }
    std::sort(heard.begin(), heard.end());
    const auto at = [&](double part) {
        return heard[static_cast<std::size_t>(part * static_cast<double>(heard.size() - 1))];
    };
    std::printf("%.1f %.1f %.1f %zu\n", at(0.5), at(0.99), heard.back(), heard.size());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "drain" && argc == 4) return drain(argv[2], argv[3]);
    const bool by_websocket = mode == "websocket";
    if ((mode == "listen" && argc == 8) || (by_websocket && argc == 9)) {
        const Plan plan{argv[2],           argv[3], argv[4], std::stol(argv[5]), std::stod(argv[6]),
                        std::stod(argv[7])};
        std::unique_ptr<Ear> ear;
        if (by_websocket)
            ear = std::make_unique<WebSocketEar>(std::stoi(argv[8]), plan.topic);
        else
            ear = std::make_unique<ListenEar>(plan.conninfo, plan.topic);
        return measure(plan, *ear);
    }
    bench::fail("usage: probe drain|listen|websocket CONNINFO ... (see the top of the source)");
}
