// herald-notifier: from PostgreSQL's log to WebSocket and HTTP clients. Here everything is made,
// started, and taken down in reverse.

#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <variant>

#include "config.h"
#include "database.h"
#include "feed.h"
#include "log.h"
#include "loop.h"
#include "server.h"

namespace herald {

namespace {

// Descriptors beside those of clients: the pool, the log, libuv's own.
constexpr rlim_t kOwnDescriptors = 256;

// Without room for all its connections the process would fail at accepting instead of refusing.
void raise_descriptor_limit(Config& config) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= config.max_connections + kOwnDescriptors)
        return;
    config.max_connections = limit.rlim_cur > 2 * kOwnDescriptors ? limit.rlim_cur - kOwnDescriptors
                                                                  : kOwnDescriptors / 4;
    spdlog::warn("only {} open files are allowed: --max-connections is lowered to {}",
                 limit.rlim_cur, config.max_connections);
}

// Pieces of payloads (transfers.h) come and go; memory for them is not fetched from the kernel and
// given back each time.
void keep_freed_memory() {
    (void)mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
}

int run(Config config) {
    start_log(config.log_format, config.log_level);
    keep_freed_memory();
    raise_descriptor_limit(config);
    auto target = PgTarget::parse(config.database);
    if (!target) {
        spdlog::critical("--database: {}", target.error().message);
        return EXIT_FAILURE;
    }

    Loop loop;
    const int max_frame = static_cast<int>(config.max_frame);
    Database database(loop.get(), target.value(),
                      {.pool_size = config.pool_size, .max_frame = max_frame});
    Server server(loop.get(), config, database);
    Feed feed(loop.get(), target.value(), server, {.max_frame = max_frame});

    const auto listening = server.listen();
    if (!listening) {
        spdlog::critical("{}", listening.error().message);
        return EXIT_FAILURE;
    }
    database.start();
    feed.start();

    bool stopping = false;
    loop.on_stop_signal([&] {
        if (stopping) return;
        stopping = true;
        feed.stop([] {});
        // The pool goes last: requests that are on their way still get their answers.
        server.stop([&] { database.stop([&] { loop.ignore_signals(); }); });
    });
    loop.run();
    spdlog::info("stopped");
    return EXIT_SUCCESS;
}

}  // namespace

}  // namespace herald

int main(int argc, char** argv) {
    auto config = herald::read_config(argc, argv);
    if (const auto* end = std::get_if<herald::EndNow>(&config)) {
        std::fputs(end->text.c_str(), end->code == 0 ? stdout : stderr);
        return end->code;
    }
    return herald::run(std::move(std::get<herald::Config>(config)));
}
