// A row of the log as PostgreSQL values: what send makes, the log stores, the trigger sees and
// the envelope is written from. Its columns are those of herald.message and herald.messages, in
// their order.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/envelope.h"
#include "pg.h"

namespace herald {

enum Column : int {
    kPos,
    kId,
    kTopic,
    kAt,
    kSender,
    kRecipient,
    kMessageType,
    kContent,
    kMetadata,
    kConversation,
    kReplyTo,
    kPriority,
    kOrderingKey,
    kExpiresAt,
    kWorkspace,
    kIdempotencyKey,
    kIsJson,
    kPayload,
    kColumns
};

struct Row {
    Datum values[kColumns];
    bool nulls[kColumns];

    // All NULL but what the table's defaults say.
    static Row with_defaults();
    // The first kColumns columns of a tuple.
    static Row from_tuple(HeapTuple tuple, TupleDesc description);
    // A composite value of type herald.messages.
    static Row from_record(HeapTupleHeader record);

    bool has(Column column) const { return !nulls[column]; }
    void set(Column column, Datum value) {
        values[column] = value;
        nulls[column] = false;
    }
    void set_text(Column column, std::string_view text);
    // The text of a column, detoasted where necessary; the column must not be NULL.
    std::string_view text(Column column) const;
    std::optional<std::string_view> optional_text(Column column) const;
    std::int64_t pos() const { return DatumGetInt64(values[kPos]); }
};

// Views into the row's values and, where these are compressed or not text, into memory of the
// current context.
MessageView view_of(const Row& row);

std::string_view text_view(Datum text);
Datum text_datum(std::string_view text);

// Between PostgreSQL's microseconds since 2000 and Unix microseconds.
constexpr std::int64_t kUnixToPostgres = 946'684'800'000'000;
constexpr std::int64_t unix_us(TimestampTz at) {
    return at + kUnixToPostgres;
}

}  // namespace herald
