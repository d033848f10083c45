#include "postgres_values.h"

#include <bit>
#include <cstddef>
#include <utility>

namespace herald {
namespace {

std::string field_of(const PGresult* result, int code) {
    return one_line(PQresultErrorField(result, code));
}

template <typename Integer>
std::string big_endian(Integer value) {
    std::string bytes(sizeof value, '\0');
    for (std::size_t i = sizeof value; i-- > 0;) {
        bytes[i] = static_cast<char>(value & 0xff);
        value = static_cast<Integer>(value >> 8);
    }
    return bytes;
}

}  // namespace

// libpq's messages come in lines, some begun with a tab; the log and clients want one.
std::string one_line(const char* text) {
    std::string line;
    bool pending_break = false;
    for (; text != nullptr && *text != '\0'; ++text) {
        if (*text == '\n' || *text == '\t') {
            pending_break = pending_break || *text == '\n';
            continue;
        }
        if (std::exchange(pending_break, false) && !line.empty()) line += "; ";
        line += *text;
    }
    return line;
}

PgFailure failure_of(const PGresult* result) {
    PgFailure failure;
    failure.sqlstate = field_of(result, PG_DIAG_SQLSTATE);
    failure.message = field_of(result, PG_DIAG_MESSAGE_PRIMARY);
    failure.hint = field_of(result, PG_DIAG_MESSAGE_HINT);
    failure.function = field_of(result, PG_DIAG_SOURCE_FUNCTION);
    if (failure.message.empty()) failure.message = one_line(PQresultErrorMessage(result));
    return failure;
}

PgParameters& PgParameters::text(std::string_view value) {
    values_.emplace_back(std::string(value));
    return *this;
}

PgParameters& PgParameters::null() {
    values_.emplace_back(std::nullopt);
    return *this;
}

PgParameters& PgParameters::int4(std::int32_t value) {
    values_.emplace_back(big_endian(value));
    return *this;
}

PgParameters& PgParameters::int8(std::int64_t value) {
    values_.emplace_back(big_endian(value));
    return *this;
}

PgParameters& PgParameters::bytes(std::string value) {
    values_.emplace_back(std::move(value));
    return *this;
}

std::int64_t PgRows::int8(int row, int column) const {
    const std::string_view bytes = text(row, column);
    std::uint64_t value = 0;
    for (const char byte : bytes) value = (value << 8) | static_cast<unsigned char>(byte);
    return std::bit_cast<std::int64_t>(value);
}

std::string_view PgRows::text(int row, int column) const {
    return {PQgetvalue(result_.get(), row, column),
            static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
}

}  // namespace herald
