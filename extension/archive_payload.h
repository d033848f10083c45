// Contents of payloads in an archive that is a directory: payloads/<id>.zst beside the files of the
// messages, one content each, however many messages have it. Behind a header that says its bytes
// and its digest it consists of zstd frames, so that zstd's tools give the content.
#pragma once

#include <cstdint>

#include "pg.h"

namespace herald {

// Stores the content of a payload, unless it is there; gives how many bytes it has stored. Each
// chunk is verified. P0002 if there is no such payload (any more), XX001 if it is damaged.
std::int64_t archive_payload(const char* directory, const pg_uuid_t& id);

// After an error: removes what is not whole.
void discard_unfinished_payload(const char* directory);

// Bytes [offset, offset + length) of a content, those there are; length < 0: up to its end. All of
// it is read and verified. P0002 if there is none, XX001 if it is damaged.
bytea* read_archived_payload(const char* directory, const pg_uuid_t& id, std::int64_t offset,
                             std::int64_t length);

}  // namespace herald
