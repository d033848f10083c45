#include "envelope.h"

#include <charconv>

namespace herald {

namespace {

struct CivilDate {
    std::int64_t year;
    unsigned month;
    unsigned day;
};

CivilDate civil_from_days(std::int64_t days) {
    days += 719468;
    const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const auto day_of_era = static_cast<unsigned>(days - era * 146097);
    const unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const unsigned day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const unsigned shifted_month = (5 * day_of_year + 2) / 153;
    const unsigned day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    const unsigned month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    return {static_cast<std::int64_t>(year_of_era) + era * 400 + (month <= 2 ? 1 : 0), month, day};
}

}  // namespace

TimestampText timestamp_text(std::int64_t unix_us) {
    constexpr std::int64_t kDay = 86'400'000'000;
    std::int64_t days = unix_us / kDay;
    std::int64_t rest = unix_us % kDay;
    if (rest < 0) {
        rest += kDay;
        --days;
    }
    const CivilDate date = civil_from_days(days);
    TimestampText result;
    const auto number = [&](std::int64_t value, std::size_t digits) {
        std::array<char, 20> reversed{};
        std::size_t length = 0;
        do {
            reversed[length++] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value > 0 || length < digits);
        while (length > 0) result.text[result.length++] = reversed[--length];
    };
    const auto mark = [&](char c) { result.text[result.length++] = c; };
    if (date.year < 0) mark('-');
    number(date.year < 0 ? -date.year : date.year, 4);
    mark('-');
    number(date.month, 2);
    mark('-');
    number(date.day, 2);
    mark('T');
    number(rest / 3'600'000'000, 2);
    mark(':');
    number(rest / 60'000'000 % 60, 2);
    mark(':');
    number(rest / 1'000'000 % 60, 2);
    mark('.');
    number(rest % 1'000'000, 6);
    mark('Z');
    return result;
}

IntegerText integer_text(std::int64_t value) {
    IntegerText result;
    const auto end =
        std::to_chars(result.text.data(), result.text.data() + result.text.size(), value);
    result.length = static_cast<std::size_t>(end.ptr - result.text.data());
    return result;
}

}  // namespace herald
