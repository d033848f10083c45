// What the client side of the notifier (hub, sessions, HTTP) asks of the database side.
// Two abstract doors, so that each side is built and tested without the other:
//   Bus       questions that a session or an HTTP request asks (implemented by Database)
//   FeedSink  what the feed pours into the hub (implemented by the hub's owner)
// Everything happens on the one libuv loop thread. Callbacks are never called from inside the
// call that takes them, always from a later turn of the loop, and exactly once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "result.h"

namespace herald {

// A position in the one order of all messages; 0 is before the first.
using Position = std::int64_t;

// One message as the log gives it. The views live as long as the callback they are passed to.
struct Row {
    Position pos = 0;
    std::string_view topic;
    std::int64_t expires_us = 0;  // Unix microseconds; 0 = never
    std::string_view envelope;    // JSON text, at most max_frame bytes
};

// Messages of the asked topics that retention or drop_topic removed, up to and including `to`.
struct Gap {
    Position to = 0;
    std::string_view why;  // "retention", "dropped" or "reset"
};

// Messages that the feed will not bring, for they are gone: of one topic (`*`: of any), the last of
// them at `to`.
struct Lost {
    Position to = 0;
    std::string_view topic;
    std::string_view why;  // "retention" or "dropped"
};

struct Page {
    std::vector<Row> rows;   // ascending pos
    Position upto = 0;       // the page is complete up to here; below `after` only after a reset
    std::optional<Gap> gap;  // removed messages between `after` and the first row
};

struct PageRequest {
    std::string topics;       // a topic or a pattern
    Position after = 0;       // first page: where the reader stands
    std::optional<int> last;  // instead of `after`: start so that the last n follow
    int max_rows = 500;
    int max_bytes = 256 * 1024;
};

// Bytes and what keeps them alive.
struct Bytes {
    std::string_view view;
    std::shared_ptr<const void> owner;
};

// A whole payload as the message that has it tells.
struct Payload {
    std::string id;
    std::uint64_t bytes = 0;
    std::string sha256;  // 32 bytes
    std::string content_type;
    std::string compression;         // of what is stored: "none", "gzip" or "zstd"
    std::uint64_t stored_bytes = 0;  // of all stored chunks
    std::uint64_t chunks = 0;        // how many there are
};

struct MessageById {
    std::string envelope;
    std::optional<Payload> payload;
};

// One chunk as it is stored, compressed on its own.
struct StoredChunk {
    std::uint64_t start = 0;
    std::uint64_t bytes = 0;  // of the content
    Bytes stored;
};

struct NewPayload {
    std::string content_type;
    std::string compression;             // empty: the database's choice
    std::optional<std::uint64_t> bytes;  // if it is known how many will come
};

struct PutPayload {
    std::string id;
    std::string sha256;  // 32 bytes
};

// How far an upload has come.
struct UploadState {
    enum class Kind : std::uint8_t { kPending, kComplete, kGone };
    Kind kind = Kind::kPending;
    std::uint64_t bytes = 0;
    std::optional<std::uint64_t> length;  // as the upload's beginning said
    std::string sha256;                   // 32 bytes if complete
};

class Bus {
  public:
    virtual ~Bus() = default;
    // One page of history. With `last`, Page::upto and later pages go on as with `after`.
    virtual void read_page(PageRequest request, std::function<void(Result<Page>)> done) = 0;
    // Stores one message given as a JSON object with the argument names of send_message (or with
    // "payload"). Gives its id.
    virtual void send(std::string message_json, std::function<void(Result<std::string>)> done) = 0;
    // The whole envelope, whatever its size up to `max_bytes`; nullopt if there is no such message.
    // `id` is a syntactically valid UUID.
    virtual void message_by_id(std::string id, int max_bytes,
                               std::function<void(Result<std::optional<MessageById>>)> done) = 0;

    // Payloads. `id` is a syntactically valid UUID, a digest 32 bytes.
    //
    // `length` bytes of the content, all of them.
    virtual void read_payload(std::string id, std::uint64_t offset, std::uint64_t length,
                              std::function<void(Result<Bytes>)> done) = 0;
    // Stored chunks in order, the first one that begins at `from`, of about max_bytes together.
    virtual void read_stored(std::string id, std::uint64_t from, int max_bytes,
                             std::function<void(Result<std::vector<StoredChunk>>)> done) = 0;
    // A whole payload at once. `sha256`: empty, or what its digest must be (else "digest").
    virtual void put_payload(NewPayload what, std::string content, std::string sha256,
                             std::function<void(Result<PutPayload>)> done) = 0;
    // Begins an upload. Gives its id.
    virtual void open_payload(NewPayload what, std::function<void(Result<std::string>)> done) = 0;
    // Appends; `offset` must be where the upload ends (else "offset"). Durable with the close.
    virtual void write_payload(std::string id, std::uint64_t offset, std::string content,
                               std::function<void(Result<std::uint64_t>)> done) = 0;
    // Ends an upload: durable when this says so. Gives the digest.
    virtual void close_payload(std::string id, std::string sha256,
                               std::function<void(Result<std::string>)> done) = 0;
    // Gives an upload up.
    virtual void abort_payload(std::string id,
                               std::function<void(Result<std::monostate>)> done) = 0;
    // nullopt if there is no such payload, or not for us.
    virtual void upload_state(std::string id,
                              std::function<void(Result<std::optional<UploadState>>)> done) = 0;
};

class FeedSink {
  public:
    virtual ~FeedSink() = default;
    // The feed stands at `pos` (first connection): what comes next is above it.
    virtual void feed_started(Position pos) = 0;
    // The next messages of the log, ascending, none skipped; then the feed stands at `upto`.
    virtual void feed_messages(std::span<const Row> rows, Position upto) = 0;
    // Some of what feed_messages is about to bring is gone. What is cached may lack it, too:
    // feed_forget follows.
    virtual void feed_lost(std::span<const Lost> lost) = 0;
    // Cached history is no longer valid (a topic was dropped).
    virtual void feed_forget() = 0;
    // The log went back behind what was delivered (restored from a backup): the feed now stands
    // at `pos`; every session must start afresh.
    virtual void feed_reset(Position pos) = 0;
    // Whether the feed's connection is up; for /readyz.
    virtual void feed_connected(bool up) = 0;
};

}  // namespace herald
