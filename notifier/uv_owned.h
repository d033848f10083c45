// Ownership of a libuv handle: leaving the scope closes it, the memory goes in the close callback.
// After reset() none of the handle's callbacks runs any more, so `data` may point to an object
// that is about to die. Loop thread only.
#pragma once

#include <uv.h>

#include <memory>

namespace herald {

struct UvClose {
    template <typename Handle>
    void operator()(Handle* handle) const {
        uv_close(reinterpret_cast<uv_handle_t*>(handle),
                 [](uv_handle_t* closed) { delete reinterpret_cast<Handle*>(closed); });
    }
};

template <typename Handle>
using UvOwned = std::unique_ptr<Handle, UvClose>;

// A timer that is not running; never fails.
inline UvOwned<uv_timer_t> make_timer(uv_loop_t* loop, void* data) {
    auto* timer = new uv_timer_t;
    uv_timer_init(loop, timer);
    timer->data = data;
    return UvOwned<uv_timer_t>(timer);
}

}  // namespace herald
