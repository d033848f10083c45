// Loop: the one event loop of the process and the signals that end it. Everything in the notifier
// runs on the thread that calls run().
#pragma once

#include <uv.h>

#include <functional>
#include <memory>

namespace herald {

class Loop {
  public:
    Loop();
    // Everything that lives on the loop must have been closed.
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    uv_loop_t* get() { return &loop_; }
    // Calls back on each SIGTERM or SIGINT until ignore_signals(). Ignores SIGPIPE.
    void on_stop_signal(std::function<void()> callback);
    void ignore_signals();
    // Returns when nothing is left to do.
    void run();

  private:
    uv_loop_t loop_;
    std::function<void()> stop_;
    uv_signal_t* signals_[2] = {nullptr, nullptr};
};

}  // namespace herald
