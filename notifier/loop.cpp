#include "loop.h"

#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdlib>
#include <utility>

namespace herald {

Loop::Loop() {
    if (const int failed = uv_loop_init(&loop_); failed != 0) {
        spdlog::critical("cannot make an event loop: {}", uv_strerror(failed));
        std::exit(EXIT_FAILURE);
    }
}

Loop::~Loop() {
    ignore_signals();
    run();
    if (uv_loop_close(&loop_) != 0) spdlog::error("the event loop ends with open handles");
}

void Loop::on_stop_signal(std::function<void()> callback) {
    std::signal(SIGPIPE, SIG_IGN);
    stop_ = std::move(callback);
    const int numbers[2] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; ++i) {
        signals_[i] = new uv_signal_t;
        uv_signal_init(&loop_, signals_[i]);
        signals_[i]->data = this;
        const auto called = [](uv_signal_t* handle, int) {
            static_cast<Loop*>(handle->data)->stop_();
        };
        if (const int failed = uv_signal_start(signals_[i], called, numbers[i]); failed != 0)
            spdlog::error("cannot watch signal {}: {}", numbers[i], uv_strerror(failed));
        uv_unref(reinterpret_cast<uv_handle_t*>(signals_[i]));
    }
}

// Who says it twice must not cut the end short: libuv gives a signal that it no longer watches its
// default action, so it is blocked until it is ignored. (Ignoring it discards one that waits.)
void Loop::ignore_signals() {
    sigset_t stopping;
    sigset_t before;
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGTERM);
    sigaddset(&stopping, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stopping, &before);
    for (uv_signal_t*& watcher : signals_) {
        if (watcher == nullptr) continue;
        const int number = watcher->signum;
        uv_close(reinterpret_cast<uv_handle_t*>(std::exchange(watcher, nullptr)),
                 [](uv_handle_t* handle) { delete reinterpret_cast<uv_signal_t*>(handle); });
        if (number != 0) std::signal(number, SIG_IGN);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Loop::run() {
    uv_run(&loop_, UV_RUN_DEFAULT);
}

}  // namespace herald
