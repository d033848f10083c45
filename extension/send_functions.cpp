// The SQL functions that send one message: send_message, publish, reply; and those by which SQL
// reaches the order.

#include "check.h"
#include "identity.h"
#include "read.h"
#include "send.h"
#include "tier.h"

namespace herald {

namespace {

// The arguments of an SQL function, moved into a draft one by one.
class Arguments {
  public:
    Arguments(FunctionCallInfo call, Draft& draft) : call_(call), draft_(draft) {}

    void column(int argument, Column column) {
        if (!is_null(argument)) draft_.row.set(column, call_->args[argument].value);
    }
    void message_type(int argument) {
        require_argument(!is_null(argument), "message_type");
        column(argument, kMessageType);
    }
    void priority(int argument) {
        require_argument(!is_null(argument), "priority");
        set_priority(draft_.row, DatumGetInt32(call_->args[argument].value));
    }
    void ttl(int argument) {
        if (!is_null(argument)) draft_.ttl = DatumGetIntervalP(call_->args[argument].value);
    }
    void deliver_at(int argument) {
        if (!is_null(argument))
            draft_.set_deliver_at(DatumGetTimestampTz(call_->args[argument].value));
    }

  private:
    bool is_null(int argument) const { return call_->args[argument].isnull; }

    FunctionCallInfo call_;
    Draft& draft_;
};

}  // namespace

HERALD_FUNCTION(herald_send_message) {
    enum : int {
        kSenderArgument,
        kRecipientArgument,
        kContentArgument,
        kTypeArgument,
        kMetadataArgument,
        kConversationArgument,
        kTopicArgument,
        kWorkspaceArgument,
        kReplyToArgument,
        kPriorityArgument,
        kKeyArgument,
        kDeliverAtArgument,
        kTtlArgument,
        kIdempotencyArgument,
    };
    Draft draft = Draft::empty();
    Arguments arguments(fcinfo, draft);
    arguments.deliver_at(kDeliverAtArgument);
    arguments.column(kSenderArgument, kSender);
    arguments.column(kRecipientArgument, kRecipient);
    arguments.column(kContentArgument, kContent);
    arguments.message_type(kTypeArgument);
    arguments.column(kMetadataArgument, kMetadata);
    arguments.column(kConversationArgument, kConversation);
    arguments.column(kTopicArgument, kTopic);
    arguments.column(kWorkspaceArgument, kWorkspace);
    arguments.column(kReplyToArgument, kReplyTo);
    arguments.priority(kPriorityArgument);
    arguments.column(kKeyArgument, kOrderingKey);
    arguments.ttl(kTtlArgument);
    arguments.column(kIdempotencyArgument, kIdempotencyKey);
    PG_RETURN_DATUM(send_one(draft));
}

HERALD_FUNCTION(herald_publish) {
    enum : int {
        kTopicArgument,
        kPayloadArgument,
        kTypeArgument,
        kMetadataArgument,
        kConversationArgument,
        kReplyToArgument,
        kPriorityArgument,
        kKeyArgument,
        kDeliverAtArgument,
        kTtlArgument,
        kIdempotencyArgument,
        kSenderArgument,
        kRecipientArgument,
    };
    require_argument(!PG_ARGISNULL(kTopicArgument), "topic");
    require_argument(!PG_ARGISNULL(kPayloadArgument), "payload");
    Draft draft = Draft::empty();
    Arguments arguments(fcinfo, draft);
    arguments.deliver_at(kDeliverAtArgument);
    arguments.column(kTopicArgument, kTopic);
    set_payload(draft.row, PG_GETARG_JSONB_P(kPayloadArgument));
    arguments.message_type(kTypeArgument);
    arguments.column(kMetadataArgument, kMetadata);
    arguments.column(kConversationArgument, kConversation);
    arguments.column(kReplyToArgument, kReplyTo);
    arguments.priority(kPriorityArgument);
    arguments.column(kKeyArgument, kOrderingKey);
    arguments.ttl(kTtlArgument);
    arguments.column(kIdempotencyArgument, kIdempotencyKey);
    arguments.column(kSenderArgument, kSender);
    arguments.column(kRecipientArgument, kRecipient);
    PG_RETURN_DATUM(send_one(draft));
}

HERALD_FUNCTION(herald_send_payload) {
    enum : int {
        kPayloadArgument,
        kTopicArgument,
        kSenderArgument,
        kRecipientArgument,
        kTypeArgument,
        kMetadataArgument,
        kConversationArgument,
        kWorkspaceArgument,
        kReplyToArgument,
        kPriorityArgument,
        kKeyArgument,
        kDeliverAtArgument,
        kTtlArgument,
        kIdempotencyArgument,
    };
    require_argument(!PG_ARGISNULL(kPayloadArgument), "payload");
    Draft draft = Draft::empty();
    Arguments arguments(fcinfo, draft);
    arguments.deliver_at(kDeliverAtArgument);
    arguments.column(kPayloadArgument, kPayload);
    arguments.column(kTopicArgument, kTopic);
    arguments.column(kSenderArgument, kSender);
    arguments.column(kRecipientArgument, kRecipient);
    arguments.message_type(kTypeArgument);
    arguments.column(kMetadataArgument, kMetadata);
    arguments.column(kConversationArgument, kConversation);
    arguments.column(kWorkspaceArgument, kWorkspace);
    arguments.column(kReplyToArgument, kReplyTo);
    arguments.priority(kPriorityArgument);
    arguments.column(kKeyArgument, kOrderingKey);
    arguments.ttl(kTtlArgument);
    arguments.column(kIdempotencyArgument, kIdempotencyKey);
    PG_RETURN_DATUM(send_one(draft));
}

HERALD_FUNCTION(herald_reply) {
    enum : int {
        kMessageArgument,
        kContentArgument,
        kSenderArgument,
        kTypeArgument,
        kMetadataArgument,
        kPriorityArgument,
        kKeyArgument,
        kDeliverAtArgument,
        kTtlArgument,
        kIdempotencyArgument,
    };
    require_argument(!PG_ARGISNULL(kMessageArgument), "message");
    Draft draft = Draft::empty();
    Arguments arguments(fcinfo, draft);
    arguments.deliver_at(kDeliverAtArgument);
    const Datum id = PG_GETARG_DATUM(kMessageArgument);
    const char* shown = DatumGetCString(DirectFunctionCall1(uuid_out, id));
    Row original;
    if (!find_message(id, &original))
        ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND), errmsg("there is no message %s", shown),
                        errhint("It may have expired, or its topic was dropped.")));
    if (!original.has(kSender))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("message %s names no sender to reply to", shown),
                        errhint("Use send_message with reply_to and a recipient or topic.")));
    draft.row.set(kRecipient, original.values[kSender]);
    if (original.has(kRecipient)) draft.row.set(kSender, original.values[kRecipient]);
    if (original.has(kConversation)) draft.row.set(kConversation, original.values[kConversation]);
    draft.row.set(kReplyTo, id);
    arguments.column(kSenderArgument, kSender);
    if (!draft.row.has(kSender))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                        errmsg("message %s names no recipient, so sender must be given", shown),
                        errhint("herald.reply(message, content, sender => …)")));
    arguments.column(kContentArgument, kContent);
    arguments.message_type(kTypeArgument);
    arguments.column(kMetadataArgument, kMetadata);
    arguments.priority(kPriorityArgument);
    arguments.column(kKeyArgument, kOrderingKey);
    arguments.ttl(kTtlArgument);
    arguments.column(kIdempotencyArgument, kIdempotencyKey);
    PG_RETURN_DATUM(send_one(draft));
}

HERALD_FUNCTION(herald_next_position) {
    PreventCommandIfReadOnly("sending a message");
    PG_RETURN_INT64(tier().next_position());
}

HERALD_FUNCTION(herald_uuid_v7) {
    PG_RETURN_DATUM(new_message_id(GetCurrentTimestamp()));
}

HERALD_FUNCTION(herald_take_order) {
    tier().administer();
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_settle) {
    tier().settle(PG_GETARG_INT64(0));
    PG_RETURN_VOID();
}

HERALD_FUNCTION(herald_discard_own) {
    PG_RETURN_INT64(tier().discard_own(PG_GETARG_DATUM(0)));
}

HERALD_FUNCTION(herald_next_free_position) {
    PG_RETURN_INT64(tier().next_free());
}

}  // namespace herald
