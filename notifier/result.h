// Result<T>: a value or an Error that can be shown to a client. No exceptions cross libuv.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace herald {

struct Error {
    std::string code;      // of the protocol: "invalid", "unavailable", "rejected", "internal", …
    std::string message;   // one sentence for a person; names the offending value
    std::string hint;      // what to do; may be empty
    std::string sqlstate;  // when the database said it
    std::string field;     // which field of the frame; may be empty
    int retry_ms = 0;      // > 0: worth trying again after so long
};

template <typename T>
class Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    explicit operator bool() const { return state_.index() == 0; }
    T& value() { return std::get<0>(state_); }
    const T& value() const { return std::get<0>(state_); }
    Error& error() { return std::get<1>(state_); }
    const Error& error() const { return std::get<1>(state_); }

  private:
    std::variant<T, Error> state_;
};

}  // namespace herald
