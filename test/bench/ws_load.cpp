// Many WebSocket connections in one thread, counting what arrives.
//   ws_load --port P --connections N [--path /p] [--sub JSON] [--step S --total T]
// Connects N times; with --sub sends that text ("%" becomes the connection's number) and waits for
// one answer on each. Prints "ready". Then with --total counts text frames: prints "at K" when the
// slowest connection has K = S, 2S, ... of them, and when all have T one line of figures:
//   done <frames> <bytes> <own CPU seconds>
// Without --total holds the connections until stdin ends.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <ctime>
#include <map>
#include <vector>

#include "socket.h"

namespace {

constexpr int kPatienceMs = 30000;
// Between two rounds of reads the client lets frames gather, so that its own system calls take as
// little as possible of the machine that the server needs.
constexpr long kGatherNanoseconds = 10'000'000;

struct Connection {
    int fd = -1;
    bool answered = false;
    long frames = 0;
    long long bytes = 0;
    bench::FrameReader reader;
};

struct Options {
    int port = 0;
    int connections = 1;
    std::string path = "/ws/connect";
    std::string sub;
    long step = 0;
    long total = 0;
};

Options parse(int argc, char** argv) {
    Options options;
    std::map<std::string, std::string> given;
    if (argc % 2 == 0) bench::fail("options come in pairs");
    for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
    for (const auto& [name, value] : given) {
        if (name == "--port")
            options.port = std::stoi(value);
        else if (name == "--connections")
            options.connections = std::stoi(value);
        else if (name == "--path")
            options.path = value;
        else if (name == "--sub")
            options.sub = value;
        else if (name == "--step")
            options.step = std::stol(value);
        else if (name == "--total")
            options.total = std::stol(value);
        else
            bench::fail("unknown option " + name);
    }
    if (options.total > 0 && options.step <= 0) options.step = options.total;
    return options;
}

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void say(const std::string& line) {
    std::puts(line.c_str());
    std::fflush(stdout);
}

class Load {
  public:
    explicit Load(Options options)
        : options_(std::move(options)),
          connections_(static_cast<std::size_t>(options_.connections)),
          events_(connections_.size()),
          buffer_(256 * 1024),
          epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        if (epoll_ < 0) bench::fail_errno("epoll_create1");
    }

    void run() {
        int number = 0;
        for (Connection& connection : connections_) open(connection, ++number);
        if (!options_.sub.empty()) {
            while (answered_ < options_.connections) turn();
        }
        say("ready");
        if (options_.total == 0) {
            hold();
            return;
        }
        passed_.assign(static_cast<std::size_t>(options_.total / options_.step) + 1, 0);
        while (finished_ < options_.connections) turn();
        report();
    }

  private:
    void open(Connection& connection, int number) {
        connection.fd = bench::connect_websocket(options_.port, options_.path);
        if (!options_.sub.empty()) {
            std::string text = options_.sub;
            for (std::size_t at; (at = text.find('%')) != std::string::npos;)
                text.replace(at, 1, std::to_string(number));
            bench::write_all(connection.fd, bench::text_frame(text));
        }
        if (::fcntl(connection.fd, F_SETFL, O_NONBLOCK) < 0) bench::fail_errno("fcntl");
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = &connection;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event) < 0)
            bench::fail_errno("epoll_ctl");
    }

    void turn() {
        const int n =
            ::epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), kPatienceMs);
        if (n < 0 && errno != EINTR) bench::fail_errno("epoll_wait");
        if (n == 0) bench::fail("nothing arrived for 30 seconds");
        for (int i = 0; i < n; ++i)
            receive(*static_cast<Connection*>(events_[static_cast<std::size_t>(i)].data.ptr));
        const timespec gather{0, kGatherNanoseconds};
        ::nanosleep(&gather, nullptr);
    }

    void receive(Connection& connection) {
        const ssize_t n = ::read(connection.fd, buffer_.data(), buffer_.size());
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) bench::fail("a connection was closed");
        connection.reader.feed(buffer_.data(), static_cast<std::size_t>(n),
                               [&](std::size_t bytes) { count(connection, bytes); });
    }

    void count(Connection& connection, std::size_t bytes) {
        if (!options_.sub.empty() && !connection.answered) {
            connection.answered = true;
            ++answered_;
            return;
        }
        if (options_.total == 0) return;
        connection.bytes += static_cast<long long>(bytes);
        if (all_frames_++ == 0) cpu_before_ = cpu_seconds();
        if (++connection.frames > options_.total) bench::fail("more frames than were published");
        if (connection.frames % options_.step != 0) return;
        const long mark = connection.frames / options_.step;
        if (++passed_[static_cast<std::size_t>(mark)] == options_.connections)
            say("at " + std::to_string(connection.frames));
        if (connection.frames == options_.total) ++finished_;
    }

    void report() const {
        long long bytes = 0;
        for (const Connection& connection : connections_) {
            if (connection.bytes != connections_[0].bytes)
                bench::fail("connections received different numbers of bytes");
            bytes += connection.bytes;
        }
        std::printf("done %lld %lld %.3f\n", all_frames_, bytes, cpu_seconds() - cpu_before_);
    }

    // Keeps the connections until stdin ends, answering nothing: the server's ping interval must
    // be longer than the measurement.
    static void hold() {
        char byte;
        while (::read(STDIN_FILENO, &byte, 1) > 0) {
        }
    }

    Options options_;
    std::vector<Connection> connections_;
    std::vector<epoll_event> events_;
    std::vector<char> buffer_;
    int epoll_;
    int answered_ = 0;
    int finished_ = 0;
    long long all_frames_ = 0;
    std::vector<int> passed_;
    double cpu_before_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    Load(parse(argc, argv)).run();
    return 0;
}
