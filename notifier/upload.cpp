#include "upload.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "core/json_escape.h"
#include "http_fields.h"

namespace herald {

namespace {

constexpr std::string_view kDefaultType = "application/octet-stream";

Response refusal(int status, std::string_view why) {
    return error_response(status, "invalid", why);
}

void add(Response& response, std::string_view name, std::string value) {
    response.headers.emplace_back(name, std::move(value));
}

// The digest of the whole that the request gives; an answer if that cannot be checked.
std::optional<Response> read_digests(const Request& request, bool whole_body, bool complete,
                                     std::string& sha256) {
    const DigestField content = read_digest(request, "content-digest");
    const DigestField whole = read_digest(request, "repr-digest");
    for (const DigestField& field : {content, whole}) {
        if (!field.present || field.sha256) continue;
        Response response = refusal(400, "of digests only sha-256=:<base64>: is checked here");
        add(response, "Want-Repr-Digest", "sha-256=10");
        return response;
    }
    if (content.present && !whole_body)
        return refusal(400, "the digest of a part is not checked: send Repr-Digest, of the whole");
    if (whole.present && !complete)
        return refusal(400, "Repr-Digest is checked with the part that makes the whole complete");
    if (content.present && whole.present && content.sha256 != whole.sha256)
        return refusal(400, "Content-Digest and Repr-Digest contradict each other");
    if (whole.present) sha256 = *whole.sha256;
    if (content.present) sha256 = *content.sha256;
    return std::nullopt;
}

}  // namespace

UploadHead read_upload_head(const Request& request, const Target& target) {
    const bool is_post = request.method == Method::kPost;
    const auto refuse = [](int status, std::string_view why) {
        return UploadHead{.upload = {}, .refusal = refusal(status, why)};
    };
    for (const char* name : {"content-type", "content-encoding", "upload-offset", "upload-complete",
                             "upload-length", "expect"})
        if (request.count(name) > 1)
            return refuse(400, std::string("there is more than one ") + name);
    if (const auto expected = request.header("expect");
        expected && !equal_ignoring_case(*expected, "100-continue"))
        return refuse(417, "only 100-continue may be expected here");
    if (const auto coding = request.header("content-encoding");
        coding && !equal_ignoring_case(*coding, "identity")) {
        UploadHead result = refuse(415, "the body must be sent as it is: it is compressed here");
        add(result.refusal, "Accept-Encoding", "identity");
        return result;
    }

    UploadRequest upload;
    upload.is_new = is_post;
    upload.length = request.body_length;
    if (const auto field = request.header("upload-complete")) {
        upload.complete = structured_boolean(*field);
        if (!upload.complete) return refuse(400, "Upload-Complete must be ?1 or ?0");
    }
    const bool complete = upload.complete.value_or(true);
    if (is_post) {
        upload.what.content_type = request.header("content-type").value_or(kDefaultType);
        if (!is_media_type(upload.what.content_type))
            return refuse(400, "Content-Type is not a media type");
        if (const std::string* compression = target.parameter("compression"))
            upload.what.compression = *compression;
        if (complete) upload.what.bytes = upload.length;
    }
    if (const auto field = request.header("upload-length")) {
        const auto length = structured_integer(*field);
        if (!length) return refuse(400, "Upload-Length must be a number of bytes");
        if (is_post && upload.what.bytes.value_or(*length) != *length)
            return refuse(400, "Upload-Length is not the length of the body");
        upload.what.bytes = length;
    }
    if (const auto field = request.header("upload-offset")) {
        const auto offset = structured_integer(*field);
        if (!offset) return refuse(400, "Upload-Offset must be a number of bytes");
        if (is_post && *offset > 0) return refuse(400, "a new upload begins at offset 0");
        upload.offset = *offset;
    } else if (!is_post) {
        return refuse(400, "Upload-Offset must say where the body goes on");
    }
    if (auto failed =
            read_digests(request, complete && upload.offset == 0, complete, upload.sha256))
        return {.upload = {}, .refusal = std::move(*failed)};
    return {.upload = std::move(upload)};
}

Response upload_state_response(const Result<std::optional<UploadState>>& result) {
    if (!result) return error_response(result.error());
    if (!result.value()) return error_response(404, "not_found", "there is no such payload");
    const UploadState& state = *result.value();
    if (state.kind == UploadState::Kind::kGone)
        return error_response(410, "not_found", "the upload has been given up");
    const bool complete = state.kind == UploadState::Kind::kComplete;
    Response response{.status = 200, .body = {}, .type = {}, .headers = {}};
    add(response, "Upload-Offset", std::to_string(state.bytes));
    add(response, "Upload-Complete", complete ? "?1" : "?0");
    if (complete || state.length)
        add(response, "Upload-Length", std::to_string(state.length.value_or(state.bytes)));
    if (complete) add(response, "Repr-Digest", digest_field(state.sha256));
    add(response, "Cache-Control", "no-store");
    return response;
}

void Upload::begin(Connection& connection, Bus& bus, UploadRequest request, std::string id,
                   Transfers& transfers) {
    if (transfers.full()) {
        connection.respond(Transfers::refusal());
        return;
    }
    const auto upload = std::make_shared<Upload>(connection, bus, std::move(request), std::move(id),
                                                 transfers.take());
    connection.begin(upload);
    upload->start();
}

Upload::Upload(Connection& connection, Bus& bus, UploadRequest request, std::string id,
               Transfers::Place place)
    : connection_(&connection),
      bus_(bus),
      request_(std::move(request)),
      place_(std::move(place)),
      id_(std::move(id)),
      length_(request_.what.bytes),
      offset_(request_.offset) {}

void Upload::start() {
    ended_ = !connection_->request().has_body();
    if (!request_.is_new) {
        busy_ = told_ = true;
        bus_.upload_state(id_, [self = shared_from_this()](const auto& result) {
            self->busy_ = false;
            self->resume(result);
        });
        return;
    }
    const bool is_small = request_.length && *request_.length <= kPiece;
    const bool is_asked = connection_->request().count("expect") > 0;
    if (!request_.complete.value_or(true) || (!is_small && (request_.length || is_asked))) {
        open();
        return;
    }
    // Whether it is taken turns out when it is here.
    connection_->invite_body();
    advance();
}

std::size_t Upload::room() const {
    return piece_.size() < kPiece ? kPiece - piece_.size() : 0;
}

void Upload::on_body(std::string_view bytes) {
    if (piece_.empty())
        piece_.reserve(std::min<std::uint64_t>(kPiece, request_.length.value_or(kPiece)));
    piece_.append(bytes);
    advance();
}

void Upload::on_body_end() {
    ended_ = true;
    advance();
}

void Upload::on_slow() {
    hurry_ = known_ && !piece_.empty();
    advance();
}

void Upload::on_stop() {
    stopping_ = true;
    advance();
}

void Upload::on_gone() {
    connection_ = nullptr;
    advance();
}

// What is to be done next. Everything that changes something ends here.
void Upload::advance() {
    if (busy_) return;
    if (connection_ == nullptr) {
        if (!known_) return;
        if (!told_) {
            give_up();
        } else if (!piece_.empty()) {
            write();  // what has come need not come again
        } else if (ended_ && is_last()) {
            close();
        }
        return;
    }
    if (stopping_ && !ended_) {
        fail({.code = "unavailable",
              .message = "the notifier stops",
              .hint = {},
              .sqlstate = {},
              .field = {},
              .retry_ms = 1000});
    } else if (!known_) {
        if (ended_ && request_.complete.value_or(true)) {
            put();
        } else if (ended_ || room() == 0) {
            open();
        }
    } else if (!piece_.empty() && (ended_ || hurry_ || room() == 0)) {
        write();
    } else if (ended_) {
        if (!is_last()) {
            tell_part();
        } else if (length_ && offset_ != *length_) {
            answer(refusal(400, "the upload has " + std::to_string(offset_) + " bytes of " +
                                    std::to_string(*length_) + " that were announced"));
        } else {
            close();
        }
    }
}

// Whether the upload is complete with what has come.
bool Upload::is_last() const {
    return request_.complete.value_or(!length_ || offset_ == *length_);
}

// The client may be gone already; what it has sent counts all the same.
void Upload::resume(const Result<std::optional<UploadState>>& result) {
    const bool pending =
        result && result.value() && result.value()->kind == UploadState::Kind::kPending;
    if (!pending) {
        Response response = upload_state_response(result);
        if (response.status == 200) {
            response.status = 409;
            response.type = "application/json";
            response.body = error_response(409, "offset", "the payload is complete").body;
        }
        answer(response);
        return;
    }
    const UploadState& state = *result.value();
    if (state.bytes != offset_) {
        Response response = error_response(
            409, "offset", "the upload goes on at byte " + std::to_string(state.bytes));
        add(response, "Upload-Offset", std::to_string(state.bytes));
        answer(response);
        return;
    }
    if (length_ && state.length && *length_ != *state.length) {
        answer(refusal(400, "Upload-Length is not what the upload's beginning said"));
        return;
    }
    length_ = state.length;
    if (length_ && request_.length && *request_.length > *length_ - std::min(offset_, *length_)) {
        answer(error_response(
            413, "limit",
            "the upload has been announced with " + std::to_string(*length_) + " bytes"));
        return;
    }
    known_ = true;
    if (connection_ != nullptr) connection_->invite_body(location());
    advance();
}

void Upload::put() {
    busy_ = true;
    offset_ = piece_.size();
    bus_.put_payload(request_.what, std::exchange(piece_, {}), request_.sha256,
                     [self = shared_from_this()](const Result<PutPayload>& result) {
                         self->busy_ = false;
                         if (!result) return self->fail(result.error());
                         self->id_ = result.value().id;
                         self->tell_done(result.value().sha256);
                     });
}

void Upload::open() {
    busy_ = true;
    bus_.open_payload(request_.what,
                      [self = shared_from_this()](const Result<std::string>& result) {
                          self->busy_ = false;
                          if (!result) return self->fail(result.error());
                          self->id_ = result.value();
                          self->known_ = true;
                          if (self->connection_ != nullptr)
                              self->told_ = self->connection_->invite_body(self->location());
                          self->advance();
                      });
}

void Upload::write() {
    busy_ = true;
    hurry_ = false;
    bus_.write_payload(id_, offset_, std::exchange(piece_, {}),
                       [self = shared_from_this()](const Result<std::uint64_t>& result) {
                           self->busy_ = false;
                           self->wrote(result);
                       });
    if (connection_ != nullptr) connection_->read_on();
}

void Upload::wrote(const Result<std::uint64_t>& result) {
    if (!result) {
        fail(result.error());
        return;
    }
    offset_ = result.value();
    advance();
}

void Upload::close() {
    busy_ = true;
    bus_.close_payload(id_, request_.sha256,
                       [self = shared_from_this()](const Result<std::string>& result) {
                           self->busy_ = false;
                           if (!result) return self->fail(result.error());
                           self->tell_done(result.value());
                       });
}

void Upload::tell_done(std::string_view sha256) {
    Response response{.status = request_.is_new ? 201 : 200, .body = {}, .headers = {}};
    response.body = R"({"payload":")" + id_ + R"(","bytes":)" + std::to_string(offset_) +
                    R"(,"checksum":"sha256:)" + hex_of(sha256) + "\"}";
    add(response, "Location", location());
    add(response, "Upload-Complete", "?1");
    answer(response);
}

void Upload::tell_part() {
    Response response{.status = request_.is_new ? 201 : 204, .body = {}, .headers = {}};
    if (request_.is_new) {
        response.body = R"({"payload":")" + id_ + R"(","bytes":)" + std::to_string(offset_) + "}";
    } else {
        response.type = {};
    }
    add(response, "Location", location());
    add(response, "Upload-Complete", "?0");
    add(response, "Upload-Offset", std::to_string(offset_));
    answer(response);
}

void Upload::give_up() {
    known_ = false;
    bus_.abort_payload(id_, [](const Result<std::monostate>& result) {
        if (!result) spdlog::warn("an upload is left to time out: {}", result.error().message);
    });
}

void Upload::fail(const Error& why) {
    piece_.clear();
    if (connection_ == nullptr)
        spdlog::info("the end of a broken upload was not written: {}", why.message);
    const bool hopeless = why.code == "digest" || why.code == "limit";
    Response response = error_response(why);
    if (!id_.empty() && !hopeless) add(response, "Location", location());
    if (known_ && hopeless) give_up();
    answer(response);
}

void Upload::answer(const Response& response) {
    if (connection_ == nullptr) return;
    std::exchange(connection_, nullptr)->respond(response);
}

}  // namespace herald
