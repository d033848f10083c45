// Says in the log what keeps the database away: each distinct reason once until a connection is
// made again, so that an hour of attempts is a few lines. At most kRemembered reasons are kept.
#pragma once

#include <cstddef>
#include <set>
#include <string>

#include "postgres.h"

namespace herald {

class TroubleLog {
  public:
    // `who` begins each line, e.g. "feed".
    explicit TroubleLog(std::string who) : who_(std::move(who)) {}
    void trouble(const PgFailure& why);
    void passed();

  private:
    static constexpr std::size_t kRemembered = 16;
    std::string who_;
    std::set<std::string> told_;
};

}  // namespace herald
