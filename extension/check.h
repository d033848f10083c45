// What is refused before it reaches the log, with the SQLSTATE, the offending value and a hint.
#pragma once

#include <string_view>

#include "row.h"

namespace herald {

// Most messages in one send_batch or publish_batch.
constexpr int kMaxBatch = 10'000;
// Most rows one call of read, tail or feed returns.
constexpr int kMaxRead = 10'000;

// 22004 if the argument is NULL.
void require_argument(bool present, const char* name);
// 22023 or 42939 unless messages can be sent to `name`.
void require_topic(std::string_view name);
// 22023 unless `pattern` is a topic name or a pattern.
void require_pattern(std::string_view pattern);
// 22023 unless 1 <= value <= kMaxRead.
void require_count(int value, const char* name);
// 22023 if negative.
void require_position(std::int64_t value, const char* name);
// 22023 unless 0 <= value <= 9.
void require_priority(std::int64_t value);
// 54000 if a batch is too large.
void require_batch_size(std::int64_t size);
// 0A000: this needs the engine.
[[noreturn]] void refuse_without_engine(const char* what);

// Every rule for a row that enters the log: names, lengths, ranges, kinds.
void require_valid(const Row& row);
// 22P02 if the row says that its content is JSON, or that it is a payload, and it isn't JSON.
void require_json(const Row& row);

// 22023 if a number of bytes is negative.
void require_not_negative(std::int64_t value, const char* name);

}  // namespace herald
