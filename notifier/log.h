// The log: one line a record to standard error, through spdlog's default logger. Anybody logs with
// spdlog::info("…", …) and the like; this room only decides what the lines look like.
#pragma once

#include <string>
#include <string_view>

namespace herald {

enum class LogFormat { kText, kJson };

// Call once at start. `level` is one of trace, debug, info, warning, error.
void start_log(LogFormat format, const std::string& level);

}  // namespace herald
