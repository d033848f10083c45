// Reading the log. Every reader takes the horizon, then a fresh snapshot, and reads up to the
// horizon, so that paging by pos never skips a message (G2), whatever the caller's snapshot.
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

}  // namespace herald
