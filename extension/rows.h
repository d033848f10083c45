// Running a query row by row through a cursor, so that a long result is never in memory at once.
#pragma once

#include "scoped.h"

namespace herald {

// Calls `each(tuple, description)` for the rows of a kept plan under the active snapshot, until it
// returns false or there are no more. Inside with_fresh_spi.
template <typename Each>
void for_each_row(SPIPlanPtr plan, Datum* values, const char* nulls, Each&& each) {
    constexpr long kRowsAtOnce = 64;
    Portal portal = SPI_cursor_open(nullptr, plan, values, nulls, true);
    for (bool more = true; more;) {
        SPI_cursor_fetch(portal, true, kRowsAtOnce);
        if (SPI_processed == 0) break;
        SPITupleTable* rows = SPI_tuptable;
        for (std::uint64_t i = 0; i < rows->numvals && more; ++i)
            more = each(rows->vals[i], rows->tupdesc);
        SPI_freetuptable(rows);
    }
    SPI_cursor_close(portal);
}

}  // namespace herald
