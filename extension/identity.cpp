#include "identity.h"

#include <cstring>

#include "core/uuid.h"
#include "row.h"

namespace herald {

namespace {

// Random numbers are fetched from the system by the block.
constexpr std::size_t kBlock = 64;
constinit std::uint64_t random_block[kBlock] = {};
constinit std::size_t random_used = kBlock;

std::uint64_t random_number() {
    if (random_used == kBlock) {
        if (!pg_strong_random(random_block, sizeof random_block))
            ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("no random numbers to be had"),
                            errhint("Check the server's source of randomness.")));
        random_used = 0;
    }
    return random_block[random_used++];
}

}  // namespace

Datum new_message_id(TimestampTz at) {
    const UuidBytes bytes = make_uuid_v7(unix_us(at), random_number());
    auto* uuid = static_cast<pg_uuid_t*>(palloc(sizeof(pg_uuid_t)));
    std::memcpy(uuid->data, bytes.data(), bytes.size());
    return UUIDPGetDatum(uuid);
}

}  // namespace herald
