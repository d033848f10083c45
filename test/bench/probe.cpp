// One measuring client, so that both ways of hearing a message are timed by the same code.
//   probe drain CONNINFO CHANNEL
//       LISTENs and reads notifications until stdin ends, then prints how many came.
//   probe listen CONNINFO SAMPLES RATE
//       sends, and hears by LISTEN on a second libpq connection
//   probe websocket CONNINFO SAMPLES RATE PORT
//       sends, and hears by a WebSocket subscription
// The last two send one message at a time, RATE a second, and print microseconds from the call of
// send_message to the arrival: "p50 p99 max samples".
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
constexpr const char* kTopic = "bench:latency";

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
    explicit ListenEar(const char* conninfo) : database_(open_database(conninfo)) {
        execute(database_.get(), std::string("LISTEN \"") + kTopic + "\"");
    }
    int fd() const override { return PQsocket(database_.get()); }
    long take() override { return take_notifications(database_.get()); }

  private:
    Database database_;
};

class WebSocketEar : public Ear {
  public:
    explicit WebSocketEar(int port)
        : fd_(bench::connect_websocket(port, "/ws/connect?user=probe")) {
        bench::write_all(fd_, bench::text_frame(std::string(R"({"op":"sub","topic":")") + kTopic +
                                                R"(","id":1})"));
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

int measure(const char* conninfo, long samples, double rate, Ear& ear) {
    if (samples < 1 || rate <= 0) bench::fail("SAMPLES and RATE are positive numbers");
    const Database database = open_database(conninfo);
    const std::string sql =
        std::string("SELECT herald.send_message('probe', NULL, repeat('x', 100), topic => '") +
        kTopic + "')";
    const Answer prepared(PQprepare(database.get(), "send", sql.c_str(), 0, nullptr), PQclear);
    if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK)
        bench::fail(PQerrorMessage(database.get()));
    const long warm_up = std::min(samples / 10 + 1, 100L);
    std::vector<double> heard;
    auto next = Clock::now();
    const auto pause =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1.0 / rate));
    for (long i = -warm_up; i < samples; ++i) {
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
    if (mode == "listen" && argc == 5) {
        ListenEar ear(argv[2]);
        return measure(argv[2], std::stol(argv[3]), std::stod(argv[4]), ear);
    }
    if (mode == "websocket" && argc == 6) {
        WebSocketEar ear(std::stoi(argv[5]));
        return measure(argv[2], std::stol(argv[3]), std::stod(argv[4]), ear);
    }
    bench::fail("usage: probe drain|listen|websocket CONNINFO ... (see the top of the source)");
}
