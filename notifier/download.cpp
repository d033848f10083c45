#include "download.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "http_fields.h"

namespace herald {

namespace {

constexpr std::uint64_t kAhead = 2 * kPiece + 16 * 1024;  // with what is before the first
// What somebody has uploaded must not run as a page of ours.
constexpr const char* kPolicy = "default-src 'none'; sandbox";

std::string etag_of(const Payload& payload, std::string_view coding) {
    std::string etag = "\"sha256:" + hex_of(payload.sha256);
    if (!coding.empty()) etag.append("-").append(coding);
    return etag + '"';
}

// A type that would not survive as a field of a head is none.
std::string_view type_of(const Payload& payload) {
    return is_media_type(payload.content_type) ? std::string_view(payload.content_type)
                                               : "application/octet-stream";
}

// Of all that is stored, as it goes out.
std::uint64_t stored_length(const Payload& payload) {
    return payload.compression == "gzip" ? GzipJoin::length(payload.stored_bytes, payload.chunks)
                                         : payload.stored_bytes;
}

Error wrong(const char* what) {
    return {.code = "internal", .message = what, .hint = {}, .sqlstate = {}, .field = {}};
}

}  // namespace

Selection select(const Request& request, const Payload& payload) {
    const std::string plain_etag = etag_of(payload, {});
    Selection plain{.etag = plain_etag, .length = payload.bytes};
    const bool stored = payload.compression != "none" && payload.bytes > 0 &&
                        accepts_coding(request, payload.compression) && request.count("range") == 0;
    Selection compressed{.stored = true,
                         .etag = etag_of(payload, payload.compression),
                         .length = stored_length(payload)};
    const auto with_status = [](Selection selection, int status) {
        selection.status = status;
        return selection;
    };

    if (request.count("if-match") > 0 && !lists_etag(request, "if-match", plain_etag, false) &&
        !(stored && lists_etag(request, "if-match", compressed.etag, false)))
        return with_status(plain, 412);
    if (stored && lists_etag(request, "if-none-match", compressed.etag, true))
        return with_status(compressed, 304);
    if (lists_etag(request, "if-none-match", plain_etag, true)) return with_status(plain, 304);
    if (stored) return compressed;

    if (request.method != Method::kGet || request.count("range") != 1) return plain;
    const auto condition = request.header("if-range");
    if (condition && *condition != plain_etag) return plain;
    const RangeChoice range = choose_range(*request.header("range"), payload.bytes);
    if (range.kind == RangeChoice::Kind::kUnsatisfiable) return with_status(plain, 416);
    if (range.kind == RangeChoice::Kind::kWhole) return plain;
    Selection part = with_status(plain, 206);
    part.from = range.from;
    part.length = range.length;
    return part;
}

Response head_of(const Selection& selection, const Payload& payload) {
    if (selection.status == 412)
        return error_response(412, "invalid",
                              "the payload's entity tag is another: " + selection.etag);
    const std::string size = std::to_string(payload.bytes);
    if (selection.status == 416) {
        Response response = error_response(416, "invalid", "the payload has " + size + " bytes");
        response.headers.emplace_back("Content-Range", "bytes */" + size);
        return response;
    }
    Response response{.status = selection.status, .body = {}, .type = {}, .headers = {}};
    const auto add = [&](std::string_view name, std::string value) {
        response.headers.emplace_back(name, std::move(value));
    };
    add("ETag", selection.etag);
    add("Vary", "Accept-Encoding");
    add("Cache-Control", "private, no-cache");
    if (selection.status == 304) return response;
    add("Content-Type", std::string(type_of(payload)));
    add("Accept-Ranges", "bytes");
    if (selection.stored) {
        add("Content-Encoding", payload.compression);
    } else {
        add("Repr-Digest", digest_field(payload.sha256));
    }
    if (selection.status == 206)
        add("Content-Range", "bytes " + std::to_string(selection.from) + "-" +
                                 std::to_string(selection.from + selection.length - 1) + "/" +
                                 size);
    add("Content-Disposition", "attachment");
    add("Content-Security-Policy", kPolicy);
    add("Cross-Origin-Resource-Policy", "same-origin");
    return response;
}

void Download::begin(Connection& connection, Bus& bus, Payload payload, Transfers& transfers) {
    Selection selection = select(connection.request(), payload);
    const bool has_body = selection.status == 200 || selection.status == 206;
    if (!has_body) {
        connection.respond(head_of(selection, payload));
    } else if (connection.request().head_only || selection.length == 0) {
        connection.begin_answer(head_of(selection, payload), selection.length);
        connection.end_answer(true);
    } else if (transfers.full()) {
        connection.respond(transfers.refusal());
    } else {
        const auto download = std::make_shared<Download>(connection, bus, std::move(payload),
                                                         std::move(selection), transfers.take());
        connection.begin(download);
        download->ask();
    }
}

Download::Download(Connection& connection, Bus& bus, Payload payload, Selection selection,
                   Transfers::Place place)
    : connection_(&connection),
      bus_(bus),
      payload_(std::move(payload)),
      selection_(std::move(selection)),
      place_(std::move(place)),
      at_(selection_.from) {
    if (selection_.stored && payload_.compression == "gzip") join_.emplace();
}

void Download::ask() {
    if (connection_ == nullptr || asking_ || connection_->buffered() >= kAhead) return;
    const std::uint64_t room = kAhead - connection_->buffered();
    if (selection_.stored) {
        ask_stored(room);
    } else {
        ask_content(room);
    }
}

void Download::ask_content(std::uint64_t room) {
    // Pieces end at multiples of their size, so that no stored chunk is read twice.
    const std::uint64_t end = selection_.from + selection_.length;
    const std::uint64_t length = std::min(end, (at_ / kPiece + 1) * kPiece) - at_;
    if (length > room) return;
    asking_ = true;
    bus_.read_payload(payload_.id, at_, length,
                      [self = shared_from_this(), length](const Result<Bytes>& result) {
                          self->content_came(length, result);
                      });
}

void Download::content_came(std::uint64_t asked, const Result<Bytes>& result) {
    if (connection_ == nullptr) return;
    asking_ = false;
    if (!result) {
        fail(result.error());
    } else if (result.value().view.size() != asked) {
        fail(wrong("the database gave another number of bytes than was asked for"));
    } else {
        at_ += asked;
        pass_on(Frame::borrowed(result.value().view, result.value().owner));
        ask();
    }
}

void Download::ask_stored(std::uint64_t room) {
    if (room < kPiece) return;
    asking_ = true;
    bus_.read_stored(payload_.id, at_, static_cast<int>(kPiece),
                     [self = shared_from_this()](const Result<std::vector<StoredChunk>>& result) {
                         self->stored_came(result);
                     });
}

void Download::stored_came(const Result<std::vector<StoredChunk>>& result) {
    if (connection_ == nullptr) return;
    asking_ = false;
    const Error other = wrong("the payload's chunks are not what the payload says");
    if (!result || result.value().empty()) {
        fail(result ? other : result.error());
        return;
    }
    for (const StoredChunk& chunk : result.value()) {
        if (!pass_on_stored(chunk)) fail(other);
        if (connection_ == nullptr) return;
    }
    ask();
}

// False: it is not what the payload says, and nothing of it has been passed on.
bool Download::pass_on_stored(const StoredChunk& chunk) {
    if (chunk.start != at_) return false;
    at_ += chunk.bytes;
    const bool last = at_ >= payload_.bytes;
    const auto part = join_ ? join_->add(chunk.stored.view, chunk.bytes) : chunk.stored.view;
    if (!part) return false;
    const Frame end = join_ && last ? Frame::raw(join_->end()) : Frame();
    // The announced length must hold.
    const std::uint64_t passed = passed_ + part->size() + end.size();
    if (passed > selection_.length || last != (passed == selection_.length)) return false;
    pass_on(Frame::borrowed(*part, chunk.stored.owner));
    if (end) pass_on(end);
    return true;
}

void Download::pass_on(Frame bytes) {
    if (!std::exchange(begun_, true))
        connection_->begin_answer(head_of(selection_, payload_), selection_.length);
    passed_ += bytes.size();
    connection_->write(std::move(bytes));
    if (passed_ == selection_.length) std::exchange(connection_, nullptr)->end_answer(true);
}

void Download::fail(const Error& why) {
    Connection& connection = *std::exchange(connection_, nullptr);
    if (begun_) {
        spdlog::warn("payload {} is sent up to byte {} only: {}", payload_.id,
                     selection_.from + passed_, why.message);
        connection.end_answer(false);
    } else {
        connection.respond(error_response(why));
    }
}

}  // namespace herald
