// Upload: the body of a request becomes a payload, piece by piece.
//
//     POST /payloads          begins one. It is whole with the body, unless Upload-Complete: ?0
//     HEAD /payloads/{id}     Upload-Offset says how far it has come
//     PATCH /payloads/{id}    goes on at Upload-Offset. It is whole when it has the length that was
//                             announced, or else with the body, unless Upload-Complete: ?0
//     DELETE /payloads/{id}   gives it up, unless it is complete
//
// The names are those of the IETF's draft of resumable uploads.
//
// One piece is with the database while the next comes in; then the socket is not read. A body that
// fits into one piece is stored in one transaction and leaves nothing behind if that fails.
// If the client goes away in the middle, what it has sent is still written, and the upload waits
// to be resumed, until herald.upload_timeout. It is given up if it is too long or its digest wrong,
// and if the client cannot know its address.
// Loop thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "bus.h"
#include "connection.h"
#include "http.h"
#include "result.h"
#include "transfers.h"

namespace herald {

// What the head of a POST or PATCH says about its upload.
struct UploadRequest {
    bool is_new = true;                   // POST
    NewPayload what;                      // POST
    std::uint64_t offset = 0;             // PATCH
    std::optional<bool> complete;         // Upload-Complete
    std::optional<std::uint64_t> length;  // of the body
    std::string sha256;                   // of the whole; 32 bytes, or empty
};
// The upload, or the answer that refuses it.
struct UploadHead {
    std::optional<UploadRequest> upload;
    Response refusal{};
};
UploadHead read_upload_head(const Request& request, const Target& target);

// The answer to HEAD.
Response upload_state_response(const Result<std::optional<UploadState>>& result);

class Upload final : public Exchange, public std::enable_shared_from_this<Upload> {
  public:
    // Inside RequestHandler::on_request. `id`: empty for a POST.
    static void begin(Connection& connection, Bus& bus, UploadRequest request, std::string id,
                      Transfers& transfers);

    Upload(Connection& connection, Bus& bus, UploadRequest request, std::string id,
           Transfers::Place place);

    std::size_t room() const override;
    void on_body(std::string_view bytes) override;
    void on_body_end() override;
    void on_slow() override;
    void on_stop() override;
    void on_gone() override;

  private:
    void start();
    void advance();
    void resume(const Result<std::optional<UploadState>>& result);
    void put();
    void open();
    void write();
    void close();
    void wrote(const Result<std::uint64_t>& result);
    void tell_done(std::string_view sha256);
    void tell_part();
    void fail(const Error& why);
    void answer(const Response& response);
    void give_up();
    bool is_last() const;
    std::string location() const { return "/payloads/" + id_; }

    Connection* connection_;  // null: gone, or answered
    Bus& bus_;
    const UploadRequest request_;
    const Transfers::Place place_;
    std::string id_;                       // empty: there is nothing in the database yet
    std::optional<std::uint64_t> length_;  // of the whole, if it is known
    std::uint64_t offset_;                 // how much the database has
    std::string piece_;                    // what comes after it
    bool known_ = false;                   // the upload has been opened, or looked at
    bool told_ = false;                    // the client knows its address
    bool busy_ = false;                    // the database is asked something
    bool ended_ = false;                   // the body is here
    bool hurry_ = false;                   // a piece that is not full is to be written
    bool stopping_ = false;
};

}  // namespace herald
