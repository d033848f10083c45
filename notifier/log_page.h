// One page of the log as herald.feed() gives it: the statements that ask for it and the reader of
// their result. Shared by Feed and Database. Pure apart from PGresult.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "bus.h"
#include "postgres.h"

namespace herald {

// Parameters: topics (NULL = all), after, max_rows, max_bytes, max_frame.
inline constexpr PgStatement kFeedStatement{
    "herald_feed",
    "SELECT pos::bigint, topic::text, expires_us::bigint, envelope::text, lost::text"
    " FROM herald.feed($1::text, $2::bigint, $3::int, $4::int, $5::int)"};

// Parameters: topics, last, max_rows, max_bytes, max_frame.
inline constexpr PgStatement kTailStatement{
    "herald_tail",
    "SELECT pos::bigint, topic::text, expires_us::bigint, envelope::text, lost::text"
    " FROM herald.feed($1::text, herald.tail_start($1::text, $2::int), $3::int, $4::int, $5::int)"};

// Fills `rows` and `lost` (views into the result) and gives the position up to which the page is
// complete; nullopt if the closing row is missing.
std::optional<Position> read_log_page(const PgRows& result, std::vector<Row>& rows,
                                      std::vector<Lost>& lost);

// SET commands that every session of the notifier begins with.
std::vector<std::string> session_commands(int statement_timeout_ms);

}  // namespace herald
