// The log: herald.message, partitioned by pos into segments of kSegmentWidth numbers each.
// Segment n is the table herald.message_<n>; it is made ahead of need and belongs to the
// extension, so pg_dump takes messages through herald.restore and not table by table.
#pragma once

#include <cstdint>

#include "row.h"
#include "table_writer.h"

namespace herald {

constexpr std::int64_t kSegmentWidth = 1'000'000'000;

Oid log_schema();
Oid log_table();
// Whether the extension is there at all.
bool log_exists();

// The table of the segment that `pos` falls into; makes it if it is missing.
Oid segment_at(std::int64_t pos);

bool segment_exists(std::int64_t pos);

// Error if this segment is being removed.
void require_attached(Oid segment);

// Drops a table that is a member of the extension, which DROP TABLE would refuse; error if somebody
// has made something of it, say a view. The caller has its lock.
void drop_member_table(Oid table);

// Makes sure that the segment after the one of `pos` exists, unless this session is using the log
// in an outer statement (then a later send does it).
void make_segment_ahead(std::int64_t pos);

// Stores rows directly in their segments, as COPY would, without planning a statement. Neither
// checks nor announces them. The rows' pos, id and at are set.
class LogWriter {
  public:
    void append(const Row& row);
    void close();

  private:
    void open(std::int64_t pos);

    TableWriter segment_;
    std::int64_t number_ = -1;
};

// Runs `work(writer)`. What it stored is visible to later commands of the transaction.
template <typename Work>
void with_log_writer(Work&& work) {
    LogWriter writer;
    work(writer);
    writer.close();
}

}  // namespace herald
