// New message ids: UUID version 7 of a message's time.
#pragma once

#include "pg.h"

namespace herald {

// A palloc'd UUID version 7 for the given time.
Datum new_message_id(TimestampTz at);

}  // namespace herald
