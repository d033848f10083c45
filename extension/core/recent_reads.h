// Where the latest reads of payloads have ended, so that it is noted once who read one, though it
// was read in pieces, by any number of sessions. A fixed number of them: where more are under way
// than that, some are noted again.
#pragma once

#include <cstdint>

#include "core/uuid.h"

namespace herald {

class RecentReads {
  public:
    // Those of one role of one payload that go on where each other ended. All zero: none.
    struct Read {
        UuidBytes payload;
        std::uint32_t role;
        std::uint32_t transaction;  // that noted it
        std::int64_t end;
        std::int64_t at;  // microseconds of any clock that never goes back
    };

    static constexpr int kMost = 128;
    // After that it is not known any more whether that transaction has committed.
    static constexpr std::int64_t kKept = 3'600'000'000;

    // The first behind number `after` (-1: of all) that goes on at `from`; -1: none.
    int find(const UuidBytes& payload, std::uint32_t role, std::int64_t from, std::int64_t now,
             int after = -1) const {
        for (int i = after + 1; i < kMost; ++i) {
            const Read& read = reads_[i];
            if (read.end == from && read.role == role && read.payload == payload && read.at != 0 &&
                now - read.at < kKept)
                return i;
        }
        return -1;
    }

    const Read& operator[](int number) const { return reads_[number]; }

    // The read that was found goes on to `to`, unless somebody else has gone on with it, or it has
    // made room for another, since it was `seen` so.
    bool go_on(int number, const Read& seen, std::int64_t to) {
        Read& read = reads_[number];
        if (read.end != seen.end || read.transaction != seen.transaction ||
            read.role != seen.role || read.payload != seen.payload)
            return false;
        read.end = to;
        return true;
    }

    // In the place of the oldest.
    void add(const Read& read) {
        Read* oldest = reads_;
        for (Read& other : reads_)
            if (other.at < oldest->at) oldest = &other;
        *oldest = read;
    }

  private:
    Read reads_[kMost];
};

}  // namespace herald
