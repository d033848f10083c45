// Durable numbers that no rollback takes back: sequences, used as registers. Each change is
// WAL-logged at once and replaces the value in place, so nothing is left to vacuum, and a standby
// sees it as it is replayed.
//   herald.message_pos_seq   the first position that was never handed out (engine: not reserved)
//   herald.horizon_seq       engine: flag set, the horizon as of this place in the WAL; plain: flag
//                            clear, a position that was decided when the engine was last used
//   herald.timeline_seq      the timeline on which positions were last handed out
#pragma once

#include <cstdint>

#include "pg.h"

namespace herald {

constexpr const char* kPositionRegister = "message_pos_seq";
constexpr const char* kHorizonRegister = "horizon_seq";
constexpr const char* kTimelineRegister = "timeline_seq";

struct RegisterValue {
    std::int64_t value;
    bool flag;  // a sequence's is_called
};

// Whether the installed objects have them: not before ALTER EXTENSION UPDATE from 0.1.0.
bool registers_exist();

// The register as it is now, whatever snapshot is in use. Works on a standby.
RegisterValue read_register(const char* name);

// Runs as the log's owner. Not on a standby, not in a read-only transaction.
void write_register(const char* name, RegisterValue value);

// Makes everything this transaction has logged so far durable.
void flush_wal();

// The first number that was never handed out, as the register knows it.
std::int64_t first_free_position();

// Called before the first number after a start: if the server is on another timeline than the last
// time (a standby was promoted, a backup restored), numbers above the register may have been handed
// out that never reached this server; then moves the register far above them.
void leave_lost_positions_behind();

}  // namespace herald
