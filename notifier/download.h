// Download: the content of a message's payload as the body of an answer.
//
// It is read from the database piece by piece, side by side with the socket: the next piece is
// asked for as soon as the last has come, unless the client is so slow that two would wait for it.
// So the database works only as fast as the client reads. One piece at a time, each where the last
// ended: for herald.audit that is one transfer, as long as one session of the pool reads them all.
// A whole payload goes out as it is stored, compressed, if the client takes that; chunks of gzip
// are joined into one member.
//
// Trouble before the first byte is an answer of its own. After it the connection ends before the
// announced length: the client sees that something is missing and comes back with a Range.
// Loop thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bus.h"
#include "connection.h"
#include "gzip_join.h"
#include "transfers.h"

namespace herald {

// What of a payload a request gets.
struct Selection {
    int status = 200;          // 200, 206, 304, 412 or 416
    bool stored = false;       // as it is stored, compressed
    std::string etag;          // of what is selected
    std::uint64_t from = 0;    // of the content
    std::uint64_t length = 0;  // of the body
};
Selection select(const Request& request, const Payload& payload);
// The head of the answer; `length` of its body is not in it.
Response head_of(const Selection& selection, const Payload& payload);

class Download final : public Exchange, public std::enable_shared_from_this<Download> {
  public:
    // Answers the connection's request with the payload.
    static void begin(Connection& connection, Bus& bus, Payload payload, Transfers& transfers);

    Download(Connection& connection, Bus& bus, Payload payload, Selection selection,
             Transfers::Place place);

    void on_written() override { ask(); }
    void on_gone() override { connection_ = nullptr; }

  private:
    void ask();
    void ask_content(std::uint64_t room);
    void content_came(std::uint64_t asked, const Result<Bytes>& result);
    void ask_stored(std::uint64_t room);
    void stored_came(const Result<std::vector<StoredChunk>>& result);
    bool pass_on_stored(const StoredChunk& chunk);
    void pass_on(Frame bytes);
    void fail(const Error& why);

    Connection* connection_;  // null: gone, or answered
    Bus& bus_;
    const Payload payload_;
    const Selection selection_;
    const Transfers::Place place_;
    std::uint64_t at_;          // of the content: everything before has been read
    std::uint64_t passed_ = 0;  // bytes of the body
    std::optional<GzipJoin> join_;
    bool asking_ = false;
    bool begun_ = false;
};

}  // namespace herald
