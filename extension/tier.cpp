#include "tier.h"

#include "check.h"
#include "engine.h"

namespace herald {

const Tier& tier() {
    return engine_loaded() ? kEngineTier : kPlainTier;
}

void require_engine(const char* what) {
    if (!engine_loaded()) refuse_without_engine(what);
}

}  // namespace herald
