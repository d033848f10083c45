#include "trouble_log.h"

#include <spdlog/spdlog.h>

namespace herald {

void TroubleLog::trouble(const PgFailure& why) {
    if (told_.size() >= kRemembered || !told_.insert(why.message).second) {
        spdlog::debug("{}: {}", who_, why.message);
        return;
    }
    std::string hint = why.hint;
    // What our statements meet where schema herald, or one of its functions, is missing or closed.
    if (why.sqlstate == "3F000" || why.sqlstate == "42883") {
        hint = "run CREATE EXTENSION pg_herald in the database the notifier connects to";
    } else if (why.sqlstate == "42501") {
        hint = "the notifier's database user needs rights on schema herald and its functions";
    }
    if (hint.empty()) {
        spdlog::warn("{}: {}; trying again", who_, why.message);
    } else {
        spdlog::error("{}: {} ({}); trying again", who_, why.message, hint);
    }
}

void TroubleLog::passed() {
    if (!told_.empty()) spdlog::info("{}: connected again", who_);
    told_.clear();
}

}  // namespace herald
