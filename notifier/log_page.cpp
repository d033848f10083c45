#include "log_page.h"

#include <fmt/format.h>

namespace herald {

std::optional<Position> read_log_page(const PgRows& result, std::vector<Row>& rows,
                                      std::vector<Lost>& lost) {
    rows.clear();
    lost.clear();
    const int closing = result.size() - 1;
    if (closing < 0 || !result.is_null(closing, 1)) return std::nullopt;
    rows.reserve(static_cast<std::size_t>(closing));
    for (int row = 0; row < closing; ++row) {
        if (!result.is_null(row, 4)) {
            lost.push_back({.to = result.int8(row, 0),
                            .topic = result.text(row, 1),
                            .why = result.text(row, 4)});
            continue;
        }
        rows.push_back({.pos = result.int8(row, 0),
                        .topic = result.text(row, 1),
                        .expires_us = result.int8(row, 2),
                        .envelope = result.text(row, 3)});
    }
    return result.int8(closing, 0);
}

std::vector<std::string> session_commands(int statement_timeout_ms) {
    return {
        fmt::format("SET statement_timeout = {}", statement_timeout_ms),
        // Each statement must see what was committed before it began.
        "SET default_transaction_isolation = 'read committed'",
        // Waiting for a doorbell or a request is what these sessions are for.
        "SET idle_session_timeout = 0",
        // Short statements: compiling them costs more than running them.
        "SET jit = off",
    };
}

}  // namespace herald
