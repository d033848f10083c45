// The SQL functions envelope and channel.

#include "announce.h"
#include "check.h"

namespace herald {

namespace {

// A row as the caller gives it: it need not come from the log.
Row envelope_argument(HeapTupleHeader record) {
    const Row row = Row::from_record(record);
    constexpr Column kNeeded[] = {kPos,         kId,      kTopic,    kAt,
                                  kMessageType, kContent, kPriority, kIsJson};
    for (const Column column : kNeeded) {
        if (row.nulls[column])
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("column %d of the message is NULL", column + 1),
                            errhint("envelope takes a whole row of herald.messages.")));
    }
    require_json(row);
    return row;
}

}  // namespace

HERALD_FUNCTION(herald_envelope) {
    const Row row = envelope_argument(PG_GETARG_HEAPTUPLEHEADER(0));
    PG_RETURN_DATUM(text_datum(envelope_of(row, MaxAllocSize)));
}

HERALD_FUNCTION(herald_envelope_limited) {
    const int max_bytes = PG_GETARG_INT32(1);
    if (max_bytes < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("max_bytes is %d; it must be at least 1", max_bytes),
                        errhint("Give a limit above zero.")));
    const Row row = envelope_argument(PG_GETARG_HEAPTUPLEHEADER(0));
    PG_RETURN_DATUM(text_datum(envelope_of(row, max_bytes)));
}

HERALD_FUNCTION(herald_channel) {
    const std::string_view topic = text_view(PG_GETARG_DATUM(0));
    require_topic(topic);
    PG_RETURN_DATUM(PointerGetDatum(cstring_to_text(channel_of(topic))));
}

}  // namespace herald
