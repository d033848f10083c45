#include <gtest/gtest.h>

#include <string>

#include "database.h"
#include "postgres_values.h"

namespace herald {
namespace {

PgFailure failure(const std::string& sqlstate) {
    return {.sqlstate = sqlstate, .message = "words", .hint = "advice"};
}

TEST(PostgresError, WhatTheDatabaseRefusesIsRejectedInItsOwnWords) {
    for (const char* state : {"22023", "23505", "42501", "42939", "54000", "0A000", "P0002"}) {
        const Error error = error_of(failure(state));
        EXPECT_EQ(error.code, "rejected") << state;
        EXPECT_EQ(error.sqlstate, state);
        EXPECT_EQ(error.message, "words");
        EXPECT_EQ(error.hint, "advice");
        EXPECT_EQ(error.retry_ms, 0) << state;
    }
}

TEST(PostgresError, WhatPassesIsWorthTryingAgain) {
    for (const char* state :
         {"08006", "57014", "57P01", "53300", "58030", "40P01", "40001", "25006", "55P03"}) {
        const Error error = error_of(failure(state));
        EXPECT_EQ(error.code, "unavailable") << state;
        EXPECT_GT(error.retry_ms, 0) << state;
    }
}

TEST(PostgresError, LostConnectionIsUnavailableWhateverWasSaidLast) {
    PgFailure lost = failure("22023");
    lost.lost = true;
    EXPECT_EQ(error_of(lost).code, "unavailable");
}

TEST(PostgresError, TheRestIsInternal) {
    EXPECT_EQ(error_of(failure("XX000")).code, "internal");
    EXPECT_EQ(error_of(failure("")).code, "internal");
}

TEST(PostgresValues, IntegersAreBigEndianAndTextsKeepEveryByte) {
    PgParameters parameters;
    parameters.text(std::string_view("a\0b", 3)).null().int4(-2).int8(0x0102030405060708);
    const auto& values = parameters.values();
    ASSERT_EQ(values.size(), 4u);
    EXPECT_EQ(values[0], std::string("a\0b", 3));
    EXPECT_FALSE(values[1].has_value());
    EXPECT_EQ(values[2], std::string("\xff\xff\xff\xfe"));
    EXPECT_EQ(values[3], std::string("\x01\x02\x03\x04\x05\x06\x07\x08"));
}

TEST(PostgresValues, MessagesBecomeOneLine) {
    EXPECT_EQ(one_line(nullptr), "");
    EXPECT_EQ(one_line("one\n"), "one");
    EXPECT_EQ(one_line("one\n\ttwo\n\n\tthree\n"), "one; two; three");
}

}  // namespace
}  // namespace herald
