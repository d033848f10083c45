// Reading the log. Every reader takes the horizon, then a fresh snapshot, and reads up to the
// horizon, so that paging by pos never skips a message (G2), whatever the caller's snapshot.
//
// One topic is asked for as (topic, pos) > ($1, $2) … ORDER BY topic, pos, which only the index on
// both can answer without a sort. With topic = $1 the planner may prefer the index on pos and walk
// over everybody else's messages, if its statistics don't know the topic. The bounds on pos alone,
// beside it, are for the pruning of segments.
#pragma once

#include "row.h"

namespace herald {

// The readable message with this id, in the current memory context. False if there is none.
bool find_message(Datum id, Row* row);

// Whether messages of one topic or of a pattern are asked.
struct TopicFilter {
    std::string_view text;
    bool pattern;

    static TopicFilter of(std::string_view topics);
};

// Puts the messages above `after` and up to `horizon` into the result set, at most `max`. Gives
// their number. Takes its snapshot now: compute the horizon before. With `tell` a notice says so if
// some above `after` are gone.
std::int64_t read_messages(const TopicFilter& filter, std::int64_t after, std::int64_t horizon,
                           int max, ReturnSetInfo* result, bool tell);

}  // namespace herald
