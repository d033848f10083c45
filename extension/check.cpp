#include "check.h"

#include "core/topic.h"

namespace herald {

namespace {

constexpr std::size_t kMaxNameCharacters = 200;
// How much of an offending value an error shows.
constexpr std::size_t kShownBytes = 80;

int shown_length(std::string_view text) {
    if (text.size() <= kShownBytes) return static_cast<int>(text.size());
    return pg_mbcliplen(text.data(), static_cast<int>(text.size()), kShownBytes);
}

[[noreturn]] void raise_name_fault(const char* kind, std::string_view name, TopicCheck check,
                                   const char* allowed) {
    switch (check.fault) {
        case TopicFault::kEmpty:
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is empty", kind),
                            errhint("It has 1 to 200 characters.")));
        case TopicFault::kTooLong:
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("%s \"%.*s…\" has %zu characters", kind, shown_length(name),
                                   name.data(), count_characters(name)),
                            errhint("It has 1 to 200 characters.")));
        case TopicFault::kReserved:
            ereport(ERROR,
                    (errcode(ERRCODE_RESERVED_NAME),
                     errmsg("%s \"%.*s\" is reserved", kind, shown_length(name), name.data()),
                     errhint("Names \"herald\" and \"herald:…\" belong to pg_herald itself.")));
        case TopicFault::kCharacter:
        case TopicFault::kNone:
            break;
    }
    const auto byte = static_cast<unsigned char>(name[check.at]);
    if (byte < 0x20 || byte == 0x7F)
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                 errmsg("%s has control character 0x%02x at byte %zu", kind, byte, check.at + 1),
                 errhint("%s", allowed)));
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("character \"%c\" is not known in %s \"%.*s\"", name[check.at], kind,
                           shown_length(name), name.data()),
                    errhint("%s", allowed)));
    pg_unreachable();
}

void require_short(const Row& row, Column column, const char* name) {
    if (!row.has(column)) return;
    const std::string_view text = row.text(column);
    if (text.size() <= kMaxNameCharacters || count_characters(text) <= kMaxNameCharacters) return;
    ereport(ERROR, (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
                    errmsg("%s \"%.*s…\" has %zu characters", name, shown_length(text), text.data(),
                           count_characters(text)),
                    errhint("It has at most 200 characters. Longer things belong into content.")));
}

}  // namespace

void require_argument(bool present, const char* name) {
    if (present) return;
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s is NULL", name),
                    errhint("Give a value for %s.", name)));
}

void require_topic(std::string_view name) {
    if (const TopicCheck check = check_topic(name); !check.ok())
        raise_name_fault("topic", name, check,
                         "A topic name has no control characters and none of * ? [ ] \\.");
}

void require_pattern(std::string_view pattern) {
    if (const TopicCheck check = check_pattern(pattern); !check.ok())
        raise_name_fault("topic pattern", pattern, check,
                         "A pattern has * for any run of characters and ? for one character.");
}

void require_count(int value, const char* name) {
    if (value >= 1 && value <= kMaxRead) return;
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("%s is %d; it must be from 1 to %d", name, value, kMaxRead),
                    errhint("Read in pages: go on with after = the last pos of a page.")));
}

void require_position(std::int64_t value, const char* name) {
    if (value >= 0) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("%s is %lld; a position is not negative", name, static_cast<long long>(value)),
             errhint("Positions begin at 1; after = 0 reads from the start.")));
}

void require_priority(std::int64_t value) {
    if (value >= 0 && value <= 9) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("priority is %lld; it must be from 0 to 9", static_cast<long long>(value)),
             errhint("0 is normal, 9 the most urgent.")));
}

void require_batch_size(std::int64_t size) {
    if (size <= kMaxBatch) return;
    ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("a batch of %lld messages; the limit is %d",
                           static_cast<long long>(size), kMaxBatch),
                    errhint("Send several batches; in one transaction they are still one unit.")));
}

void refuse_without_engine(const char* what) {
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("%s needs the herald engine, which is not loaded", what),
                    errhint("Set shared_preload_libraries = 'pg_herald' and restart the server.")));
    pg_unreachable();
}

void require_valid(const Row& row) {
    require_argument(row.has(kTopic), "topic");
    require_argument(row.has(kContent) || row.has(kPayload), "content");
    require_argument(row.has(kMessageType), "message_type");
    require_topic(row.text(kTopic));
    require_short(row, kSender, "sender");
    require_short(row, kRecipient, "recipient");
    require_short(row, kMessageType, "message_type");
    require_short(row, kConversation, "conversation");
    require_short(row, kOrderingKey, "ordering_key");
    require_short(row, kWorkspace, "workspace");
    require_short(row, kIdempotencyKey, "idempotency_key");
    if (row.text(kMessageType).empty())
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("message_type is empty"),
                        errhint("Leave it out for \"notification\".")));
    if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(row.values[kAt])))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("at is infinite"),
                        errhint("Leave it out: herald gives each message its time.")));
    require_priority(DatumGetInt16(row.values[kPriority]));
    if (row.has(kMetadata) && !JB_ROOT_IS_OBJECT(DatumGetJsonbP(row.values[kMetadata])))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("metadata is not a JSON object"),
                 errhint("Wrap it: {\"value\": …}.")));
    if (row.has(kExpiresAt) &&
        DatumGetTimestampTz(row.values[kExpiresAt]) <= DatumGetTimestampTz(row.values[kAt]))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("the message would expire at %s, before it is sent",
                               timestamptz_to_str(DatumGetTimestampTz(row.values[kExpiresAt]))),
                        errhint("Give a ttl above zero.")));
}

void require_json(const Row& row) {
    if (!DatumGetBool(row.values[kIsJson]) && !row.has(kPayload)) return;
    (void)DirectFunctionCall1(json_in, CStringGetDatum(TextDatumGetCString(row.values[kContent])));
}

void require_not_negative(std::int64_t value, const char* name) {
    if (value >= 0) return;
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("%s is %lld; it must not be negative", name, static_cast<long long>(value)),
             errhint("Give a number of bytes.")));
}

}  // namespace herald
