#include "row.h"

#include <cstring>

namespace herald {

std::string_view text_view(Datum text) {
    const struct varlena* value = PG_DETOAST_DATUM_PACKED(text);
    return {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};
}

Datum text_datum(std::string_view text) {
    return PointerGetDatum(cstring_to_text_with_len(text.data(), static_cast<int>(text.size())));
}

Row Row::with_defaults() {
    Row row;
    std::memset(row.values, 0, sizeof row.values);
    std::memset(row.nulls, true, sizeof row.nulls);
    row.set(kPriority, Int16GetDatum(0));
    row.set(kIsJson, BoolGetDatum(false));
    return row;
}

Row Row::from_tuple(HeapTuple tuple, TupleDesc description) {
    // Before ALTER EXTENSION UPDATE from 0.1.0 the last column is not there.
    if (description->natts < kColumns - 1)
        elog(ERROR, "herald: a row of %d columns where %d were expected", description->natts,
             static_cast<int>(kColumns));
    Row row = with_defaults();
    for (int column = 0; column < Min(kColumns, description->natts); ++column)
        row.values[column] = heap_getattr(tuple, column + 1, description, &row.nulls[column]);
    return row;
}

Row Row::from_record(HeapTupleHeader record) {
    TupleDesc description =
        lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record), HeapTupleHeaderGetTypMod(record));
    HeapTupleData tuple;
    tuple.t_len = HeapTupleHeaderGetDatumLength(record);
    ItemPointerSetInvalid(&tuple.t_self);
    tuple.t_tableOid = InvalidOid;
    tuple.t_data = record;
    const Row row = from_tuple(&tuple, description);
    ReleaseTupleDesc(description);
    return row;
}

void Row::set_text(Column column, std::string_view text) {
    set(column, text_datum(text));
}

std::string_view Row::text(Column column) const {
    return text_view(values[column]);
}

std::optional<std::string_view> Row::optional_text(Column column) const {
    if (nulls[column]) return std::nullopt;
    return text(column);
}

MessageView view_of(const Row& row) {
    const auto uuid = [&](Column column) {
        UuidBytes bytes;
        std::memcpy(bytes.data(), DatumGetUUIDP(row.values[column])->data, bytes.size());
        return bytes;
    };
    MessageView view;
    view.pos = row.pos();
    view.id = uuid(kId);
    view.topic = row.text(kTopic);
    view.at_us = unix_us(DatumGetTimestampTz(row.values[kAt]));
    view.message_type = row.text(kMessageType);
    view.sender = row.optional_text(kSender);
    view.recipient = row.optional_text(kRecipient);
    view.conversation = row.optional_text(kConversation);
    view.content = row.text(kContent);
    view.content_is_json = DatumGetBool(row.values[kIsJson]);
    view.content_is_reference = row.has(kPayload);
    if (row.has(kMetadata)) {
        Jsonb* metadata = DatumGetJsonbP(row.values[kMetadata]);
        view.metadata = JsonbToCString(nullptr, &metadata->root, VARSIZE(metadata));
    }
    if (row.has(kReplyTo)) view.reply_to = uuid(kReplyTo);
    view.priority = DatumGetInt16(row.values[kPriority]);
    view.ordering_key = row.optional_text(kOrderingKey);
    if (row.has(kExpiresAt)) {
        const TimestampTz expires = DatumGetTimestampTz(row.values[kExpiresAt]);
        if (!TIMESTAMP_NOT_FINITE(expires)) view.expires_us = unix_us(expires);
    }
    return view;
}

}  // namespace herald
