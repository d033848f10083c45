// Messages as JSON objects: send_batch and publish_batch, many in one call, all of them or none;
// and send_object, a single one.

#include "check.h"
#include "core/uuid.h"
#include "send.h"
#include "tier.h"

namespace herald {

namespace {

// What an argument of send_message may be in a batch's JSON.
enum class Kind { kText, kObject, kAny, kUuid, kInteger, kInterval, kTime };

struct Member {
    std::string_view name;
    Kind kind;
    Column column;
};

constexpr Member kMembers[] = {
    {"sender", Kind::kText, kSender},
    {"recipient", Kind::kText, kRecipient},
    {"content", Kind::kText, kContent},
    {"payload", Kind::kAny, kContent},
    {"payload_id", Kind::kUuid, kPayload},
    {"message_type", Kind::kText, kMessageType},
    {"metadata", Kind::kObject, kMetadata},
    {"conversation", Kind::kText, kConversation},
    {"topic", Kind::kText, kTopic},
    {"workspace", Kind::kText, kWorkspace},
    {"reply_to", Kind::kUuid, kReplyTo},
    {"priority", Kind::kInteger, kPriority},
    {"ordering_key", Kind::kText, kOrderingKey},
    {"deliver_at", Kind::kTime, kAt},
    {"ttl", Kind::kInterval, kExpiresAt},
    {"idempotency_key", Kind::kText, kIdempotencyKey},
};

const Member* find_member(std::string_view name) {
    for (const Member& member : kMembers) {
        if (member.name == name) return &member;
    }
    return nullptr;
}

// Which message an error speaks of: an element of the batch, or the only one.
struct Place {
    int index;  // < 0: the only one

    const char* name() const { return index < 0 ? "the message" : psprintf("messages[%d]", index); }
    const char* prefix() const { return index < 0 ? "" : psprintf("messages[%d].", index); }
};

[[noreturn]] void refuse_kind(Place place, const Member& member, const char* wanted) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("%s%.*s must be %s", place.prefix(),
                           static_cast<int>(member.name.size()), member.name.data(), wanted),
                    errhint("Objects of a batch have the arguments of herald.send_message.")));
    pg_unreachable();
}

// The text of a JSON string as a C string.
const char* string_of(const JsonbValue& value, Place place, const Member& member,
                      const char* wanted) {
    if (value.type != jbvString) refuse_kind(place, member, wanted);
    return pnstrdup(value.val.string.val, static_cast<Size>(value.val.string.len));
}

// The value that a type's input function makes of a text.
Datum typed_value(const char* written, PGFunction input, Place place, const Member& member,
                  const char* wanted) {
    volatile Datum result = 0;
    volatile bool read = false;
    MemoryContext caller = CurrentMemoryContext;
    PG_TRY();
    {
        result = DirectFunctionCall3(input, CStringGetDatum(written), ObjectIdGetDatum(InvalidOid),
                                     Int32GetDatum(-1));
        read = true;
    }
    PG_CATCH();
    {
        // Only what the text itself is to blame for; the type's input function has no side effect.
        if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION) PG_RE_THROW();
        MemoryContextSwitchTo(caller);
        FlushErrorState();
    }
    PG_END_TRY();
    if (!read) refuse_kind(place, member, wanted);
    return result;
}

const Interval* interval_of(const JsonbValue& value, Place place, const Member& member) {
    constexpr const char* kWanted = "an interval such as \"1 hour\"";
    return DatumGetIntervalP(
        typed_value(string_of(value, place, member, kWanted), interval_in, place, member, kWanted));
}

void set_member(Draft& draft, const JsonbValue& value, Place place, const Member& member) {
    Row& row = draft.row;
    if (value.type == jbvNull && member.kind != Kind::kAny) {
        require_argument(member.column != kMessageType && member.column != kPriority,
                         member.name.data());
        return;
    }
    switch (member.kind) {
        case Kind::kText:
            if (value.type != jbvString) refuse_kind(place, member, "a string");
            row.set_text(member.column,
                         {value.val.string.val, static_cast<std::size_t>(value.val.string.len)});
            break;
        case Kind::kObject:
            if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
                refuse_kind(place, member, "a JSON object");
            row.set(member.column,
                    JsonbPGetDatum(JsonbValueToJsonb(const_cast<JsonbValue*>(&value))));
            break;
        case Kind::kAny:
            set_payload(row, JsonbValueToJsonb(const_cast<JsonbValue*>(&value)));
            break;
        case Kind::kUuid: {
            const char* wanted = "a UUID";
            const char* written = string_of(value, place, member, wanted);
            if (!is_uuid_text(written)) refuse_kind(place, member, wanted);
            row.set(member.column, DirectFunctionCall1(uuid_in, CStringGetDatum(written)));
            break;
        }
        case Kind::kInteger: {
            constexpr const char* kWanted = "an integer from 0 to 9";
            if (value.type != jbvNumeric) refuse_kind(place, member, kWanted);
            const double number = DatumGetFloat8(DirectFunctionCall1(
                numeric_float8_no_overflow, NumericGetDatum(value.val.numeric)));
            if (!(number >= 0 && number <= 9) || number != static_cast<int>(number))
                refuse_kind(place, member, kWanted);
            set_priority(row, static_cast<std::int64_t>(number));
            break;
        }
        case Kind::kInterval:
            draft.ttl = interval_of(value, place, member);
            break;
        case Kind::kTime: {
            constexpr const char* kWanted = "a time such as \"2030-01-31T12:00:00Z\"";
            const Datum time = typed_value(string_of(value, place, member, kWanted), timestamptz_in,
                                           place, member, kWanted);
            draft.set_deliver_at(DatumGetTimestampTz(time));
            break;
        }
    }
}

Draft read_draft(JsonbContainer* object, Place place) {
    Draft draft = Draft::empty();
    draft.row.set_text(kMessageType, "notification");
    bool content = false;
    bool payload = false;
    JsonbIterator* iterator = JsonbIteratorInit(object);
    JsonbValue key;
    JsonbValue value;
    (void)JsonbIteratorNext(&iterator, &key, true);  // WJB_BEGIN_OBJECT
    while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY) {
        (void)JsonbIteratorNext(&iterator, &value, true);
        const std::string_view name(key.val.string.val,
                                    static_cast<std::size_t>(key.val.string.len));
        const Member* member = find_member(name);
        if (member == nullptr)
            ereport(ERROR,
                    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                     errmsg("%s has \"%.*s\", which send_message does not know", place.name(),
                            static_cast<int>(name.size()), name.data()),
                     errhint("Objects of a batch have the arguments of herald.send_message, or "
                             "payload or payload_id instead of content.")));
        content = content || name == "content";
        payload = payload || name == "payload";
        set_member(draft, value, place, *member);
    }
    if (draft.row.has(kPayload) && draft.row.has(kContent))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s has both payload_id and %s", place.name(),
                               payload ? "payload" : "content"),
                        errhint("payload_id names a content that is stored: give one of them.")));
    if (content && payload)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("%s has both content and payload", place.name()),
                        errhint("content is text, payload any JSON: give one of them.")));
    if (!draft.row.has(kContent) && !draft.row.has(kPayload))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                        errmsg("%scontent is missing", place.prefix()),
                        errhint("Give content (text), payload (any JSON) or payload_id.")));
    if (payload && !draft.row.has(kTopic))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                        errmsg("%stopic is missing", place.prefix()),
                        errhint("A payload is published to a topic.")));
    return draft;
}

// Sends `count` drafts, made by `draft_of(index)`, and returns their ids as a set.
template <typename DraftOf>
void send_all(FunctionCallInfo fcinfo, int count, DraftOf&& draft_of) {
    PreventCommandIfReadOnly("sending messages");
    PreventCommandIfParallelMode("sending messages");
    InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "herald batch", ALLOCSET_DEFAULT_SIZES);
    tier().expect(count);
    std::int64_t last = 0;
    int current = 0;
    ErrorContextCallback context;
    context.previous = error_context_stack;
    context.callback = [](void* index) {
        errcontext("element %d (from 0) of the batch", *static_cast<int*>(index));
    };
    context.arg = &current;
    error_context_stack = &context;
    with_log_writer([&](LogWriter& writer) {
        for (int index = 0; index < count; ++index) {
            current = index;
            MemoryContext caller = MemoryContextSwitchTo(scratch);
            Draft draft = draft_of(index);
            Datum id = send_draft(writer, draft);
            bool null = false;
            tuplestore_putvalues(result->setResult, result->setDesc, &id, &null);
            if (draft.row.has(kPos)) last = draft.row.pos();
            MemoryContextSwitchTo(caller);
            MemoryContextReset(scratch);
        }
    });
    error_context_stack = context.previous;
    MemoryContextDelete(scratch);
    if (last > 0) tier().do_chores(last, count);
}

}  // namespace

HERALD_FUNCTION(herald_send_batch) {
    require_argument(!PG_ARGISNULL(0), "messages");
    Jsonb* messages = PG_GETARG_JSONB_P(0);
    if (!JB_ROOT_IS_ARRAY(messages) || JB_ROOT_IS_SCALAR(messages))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("messages is not a JSON array"),
                 errhint("[{\"sender\": …, \"recipient\": …, \"content\": …}, …]")));
    const int count = JB_ROOT_COUNT(messages);
    require_batch_size(count);
    JsonbIterator* iterator = JsonbIteratorInit(&messages->root);
    JsonbValue element;
    (void)JsonbIteratorNext(&iterator, &element, true);  // WJB_BEGIN_ARRAY
    send_all(fcinfo, count, [&](int index) {
        (void)JsonbIteratorNext(&iterator, &element, true);
        if (element.type != jbvBinary || !JsonContainerIsObject(element.val.binary.data))
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("messages[%d] is not a JSON object", index),
                            errhint("[{\"sender\": …, \"recipient\": …, \"content\": …}, …]")));
        return read_draft(element.val.binary.data, {index});
    });
    return 0;
}

HERALD_FUNCTION(herald_send_object) {
    require_argument(!PG_ARGISNULL(0), "message");
    Jsonb* message = PG_GETARG_JSONB_P(0);
    if (!JB_ROOT_IS_OBJECT(message))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("message is not a JSON object"),
                 errhint("{\"sender\": …, \"recipient\": …, \"content\": …}")));
    Draft draft = read_draft(&message->root, {-1});
    PG_RETURN_DATUM(send_one(draft));
}

HERALD_FUNCTION(herald_publish_batch) {
    require_argument(!PG_ARGISNULL(0), "topic");
    require_argument(!PG_ARGISNULL(1), "payloads");
    require_argument(!PG_ARGISNULL(2), "message_type");
    ArrayType* payloads = PG_GETARG_ARRAYTYPE_P(1);
    const int count = ArrayGetNItems(ARR_NDIM(payloads), ARR_DIMS(payloads));
    require_batch_size(count);
    ArrayIterator iterator = array_create_iterator(payloads, 0, nullptr);
    send_all(fcinfo, count, [&](int index) {
        Datum payload = 0;
        bool null = false;
        (void)array_iterate(iterator, &payload, &null);
        if (null)
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("payloads[%d] is NULL", index + 1),
                            errhint("For a JSON null write 'null'::jsonb.")));
        Draft draft = Draft::empty();
        draft.row.set(kTopic, PG_GETARG_DATUM(0));
        set_payload(draft.row, DatumGetJsonbP(payload));
        draft.row.set(kMessageType, PG_GETARG_DATUM(2));
        if (!PG_ARGISNULL(3)) draft.row.set(kConversation, PG_GETARG_DATUM(3));
        if (!PG_ARGISNULL(4)) draft.row.set(kSender, PG_GETARG_DATUM(4));
        return draft;
    });
    return 0;
}

}  // namespace herald
