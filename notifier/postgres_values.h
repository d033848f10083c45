// What goes into a statement and what comes out of it: parameters, rows, failures. Pure apart from
// PGresult.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace herald {

// What went wrong, in the server's or libpq's words.
struct PgFailure {
    std::string sqlstate{};  // empty when it was not the server that spoke
    std::string message{};   // one line
    std::string hint{};
    std::string function{};  // the server's C function (PG_DIAG_SOURCE_FUNCTION)
    bool lost = false;       // the connection broke: whether the command took effect is unknown
};

// Parameters of one call, all sent in binary so that no byte needs escaping and NUL cannot cut a
// text short (the server refuses it instead).
class PgParameters {
  public:
    PgParameters& text(std::string_view value);
    PgParameters& null();
    PgParameters& int4(std::int32_t value);
    PgParameters& int8(std::int64_t value);
    PgParameters& bytes(std::string value);
    const std::vector<std::optional<std::string>>& values() const { return values_; }

  private:
    std::vector<std::optional<std::string>> values_;
};

// A result set with columns in binary form; views live as long as the callback, or its owner().
class PgRows {
  public:
    explicit PgRows(std::shared_ptr<const PGresult> result) : result_(std::move(result)) {}
    int size() const { return PQntuples(result_.get()); }
    bool is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }
    std::shared_ptr<const void> owner() const { return result_; }
    // A bigint (or int) column; 0 for NULL.
    std::int64_t int8(int row, int column) const;
    std::string_view text(int row, int column) const;

  private:
    std::shared_ptr<const PGresult> result_;
};

// A result's error; precondition: its status is an error.
PgFailure failure_of(const PGresult* result);

// A server's or libpq's text without line breaks; empty for nullptr.
std::string one_line(const char* text);

}  // namespace herald
