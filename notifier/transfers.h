// Transfers: how many payloads may be on their way at a time, up and down together. Each takes some
// pieces of memory (see kPiece), whatever its size.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "http.h"

namespace herald {

// What goes to and comes from the database at a time. Three chunks of a payload: with its header it
// just fits a buffer of libpq's, which doubles.
constexpr std::size_t kPiece = 768 * 1024;

class Transfers {
  public:
    // A place is free again when it is destroyed, also if that is after the end of Transfers.
    class Place {
      public:
        Place(Place&& other) noexcept : used_(std::move(other.used_)) {}
        Place& operator=(Place&&) = delete;
        ~Place() {
            if (used_ != nullptr) --*used_;
        }

      private:
        friend class Transfers;
        explicit Place(std::shared_ptr<std::size_t> used) : used_(std::move(used)) { ++*used_; }
        std::shared_ptr<std::size_t> used_;
    };

    explicit Transfers(std::size_t places) : places_(places) {}
    bool full() const { return *used_ >= places_; }
    std::size_t used() const { return *used_; }
    // Precondition: not full.
    Place take() { return Place(used_); }
    // The answer if it is full.
    static Response refusal() {
        Response response =
            error_response(503, "unavailable", "too many payloads are on their way");
        response.headers.emplace_back("Retry-After", "1");
        return response;
    }

  private:
    const std::size_t places_;
    std::shared_ptr<std::size_t> used_ = std::make_shared<std::size_t>(0);
};

}  // namespace herald
