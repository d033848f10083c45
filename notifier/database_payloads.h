// What the payload part of Database (database_payloads.cpp) shares with the rest of it.
#pragma once

#include <optional>
#include <span>

#include "bus.h"
#include "postgres.h"

namespace herald {

// Prepared on every connection of the pool.
std::span<const PgStatement> payload_statements();

// From the columns id, bytes, checksum, content_type, compression, stored_bytes, chunks, the first
// of them at `column`; nullopt if the payload is not there.
std::optional<Payload> payload_of(const PgRows& rows, int row, int column);

}  // namespace herald
