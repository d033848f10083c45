// Downloads and uploads over real sockets, against payloads in memory.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/chunk.h"
#include "download.h"
#include "http_fields.h"
#include "random.h"
#include "stage.h"
#include "upload.h"

namespace herald::test {
namespace {

using nlohmann::json;

constexpr std::size_t kBig = 10 * kPiece + 12345;

NewPayload of_type(std::string type, std::string compression = "none") {
    return {.content_type = std::move(type), .compression = std::move(compression), .bytes = {}};
}

std::string noise(std::size_t size) {
    std::mt19937_64 engine(size);
    std::string result(size, '\0');
    for (std::size_t i = 0; i + 8 <= size; i += 8) {
        const std::uint64_t value = engine();
        std::memcpy(&result[i], &value, 8);
    }
    return result;
}

std::string ask(const std::string& method, const std::string& target,
                const std::string& headers = "") {
    return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

std::string post(const std::string& body, const std::string& headers = "") {
    return ask("POST", "/payloads",
               "Content-Length: " + std::to_string(body.size()) + "\r\n" + headers) +
           body;
}

std::string chunked(const std::string& body, std::size_t size = 100'000) {
    std::string wire;
    for (std::size_t at = 0; at < body.size(); at += size) {
        char line[32];
        std::snprintf(line, sizeof line, "%zx\r\n", std::min(size, body.size() - at));
        wire += line + body.substr(at, size) + "\r\n";
    }
    return wire + "0\r\n\r\n";
}

// Payloads by the address that an answer gave.
const StoredPayload& at(Stage& stage, const std::string& location) {
    return stage.bus.payloads.at(location.substr(std::string("/payloads/").size()));
}

class Payloads : public testing::Test {
  protected:
    Stage stage;
    const std::string big = noise(kBig);
};

TEST(PayloadSelection, ChoosesWhatIsSent) {
    const Payload payload{.id = "x",
                          .bytes = 1000,
                          .sha256 = std::string(32, '\xab'),
                          .content_type = "text/html",
                          .compression = "zstd",
                          .stored_bytes = 600,
                          .chunks = 3};
    const auto choose = [&](std::vector<std::pair<std::string, std::string>> headers,
                            Method method = Method::kGet) {
        Request request;
        request.method = method;
        request.headers = std::move(headers);
        return select(request, payload);
    };
    const Selection plain = choose({});
    EXPECT_EQ(plain.status, 200);
    EXPECT_FALSE(plain.stored);
    EXPECT_EQ(plain.length, 1000U);
    EXPECT_EQ(plain.etag, "\"sha256:" + hex_of(payload.sha256) + "\"");
    const Selection stored = choose({{"accept-encoding", "gzip, zstd"}});
    EXPECT_TRUE(stored.stored);
    EXPECT_EQ(stored.length, 600U);
    EXPECT_NE(stored.etag, plain.etag);
    EXPECT_FALSE(choose({{"accept-encoding", "zstd"}, {"range", "bytes=0-9"}}).stored);

    const Selection part = choose({{"range", "bytes=10-19"}});
    EXPECT_EQ(part.status, 206);
    EXPECT_EQ(part.from, 10U);
    EXPECT_EQ(part.length, 10U);
    EXPECT_EQ(choose({{"range", "bytes=10-19"}}, Method::kHead).status, 200);
    EXPECT_EQ(choose({{"range", "bytes=1000-"}}).status, 416);
    EXPECT_EQ(choose({{"range", "bytes=0-"}, {"if-range", plain.etag}}).status, 206);
    EXPECT_EQ(choose({{"range", "bytes=0-"}, {"if-range", stored.etag}}).status, 200);
    EXPECT_EQ(choose({{"range", "bytes=0-"}, {"if-range", "W/" + plain.etag}}).status, 200);
    EXPECT_EQ(choose({{"range", "bytes=0-"}, {"if-range", "Mon, 01 Jan 2024 00:00:00 GMT"}}).status,
              200);
    EXPECT_EQ(choose({{"range", "bytes=0-1"}, {"range", "bytes=3-4"}}).status, 200);

    EXPECT_EQ(choose({{"if-none-match", plain.etag}}).status, 304);
    EXPECT_EQ(choose({{"if-none-match", plain.etag}, {"range", "bytes=5000-"}}).status, 304);
    EXPECT_EQ(choose({{"if-none-match", stored.etag}}).status, 200);
    EXPECT_EQ(choose({{"if-none-match", stored.etag}, {"accept-encoding", "zstd"}}).status, 304);
    EXPECT_EQ(choose({{"if-none-match", plain.etag}, {"accept-encoding", "zstd"}}).etag,
              plain.etag);
    EXPECT_EQ(choose({{"if-match", "\"other\""}}).status, 412);
    EXPECT_EQ(choose({{"if-match", "\"other\", " + plain.etag}}).status, 200);
    EXPECT_EQ(choose({{"if-match", "*"}}).status, 200);

    Payload hostile = payload;
    hostile.content_type = "text/html\r\nSet-Cookie: a=b";
    for (const auto& [name, value] : head_of(plain, hostile).headers)
        EXPECT_EQ(value.find('\n'), std::string::npos) << name;
}

TEST(PayloadSelection, OfGzipIsOneMember) {
    const Payload payload{.id = "x",
                          .bytes = 1000,
                          .sha256 = std::string(32, '\xab'),
                          .content_type = "text/html",
                          .compression = "gzip",
                          .stored_bytes = 600,
                          .chunks = 3};
    const auto choose = [&](std::vector<std::pair<std::string, std::string>> headers) {
        Request request;
        request.headers = std::move(headers);
        return select(request, payload);
    };
    const Selection joined = choose({{"accept-encoding", "deflate, gzip, br"}});
    EXPECT_TRUE(joined.stored);
    EXPECT_EQ(joined.length, 560U) << "without a head of 10 bytes and an end of 10, twice";
    EXPECT_EQ(joined.etag, "\"sha256:" + hex_of(payload.sha256) + "-gzip\"");
    EXPECT_EQ(choose({{"accept-encoding", "gzip"}, {"if-none-match", joined.etag}}).status, 304);
    EXPECT_FALSE(choose({{"accept-encoding", "gzip"}, {"range", "bytes=0-"}}).stored);
    for (const char* other : {"zstd", "gzip;q=0", "identity"}) {
        const Selection plain = choose({{"accept-encoding", other}});
        EXPECT_FALSE(plain.stored) << other;
        EXPECT_EQ(plain.length, 1000U);
    }
}

TEST_F(Payloads, Download) {
    const std::string id = stage.bus.store_payload(big, of_type("text/html"));
    Client client(stage);
    client.send_bytes(ask("GET", "/messages/" + id) + ask("HEAD", "/messages/" + id) +
                      ask("GET", "/messages/" + id, "Range: bytes=1000000-3000000\r\n") +
                      ask("GET", "/healthz"));
    const auto whole = client.response();
    EXPECT_EQ(whole.status, 200);
    EXPECT_TRUE(whole.body == big);
    EXPECT_EQ(whole.headers.at("content-type"), "text/html");
    EXPECT_EQ(whole.headers.at("repr-digest"), digest_field(sha256(big)));
    EXPECT_EQ(whole.headers.at("accept-ranges"), "bytes");
    EXPECT_EQ(whole.headers.at("vary"), "Accept-Encoding");
    EXPECT_EQ(whole.headers.at("content-disposition"), "attachment");
    EXPECT_EQ(whole.headers.at("content-security-policy"), "default-src 'none'; sandbox");
    EXPECT_EQ(whole.headers.at("x-content-type-options"), "nosniff");
    const auto head = client.response(false);
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.headers, whole.headers);
    const auto part = client.response();
    EXPECT_EQ(part.status, 206);
    EXPECT_TRUE(part.body == big.substr(1'000'000, 2'000'001));
    EXPECT_EQ(part.headers.at("content-range"),
              "bytes 1000000-3000000/" + std::to_string(big.size()));
    EXPECT_EQ(client.response().body, "ok\n") << "the connection goes on";
}

TEST_F(Payloads, DownloadOfNothingAndOfWhatIsStored) {
    const std::string empty = stage.bus.store_payload("", of_type("a/b"));
    const std::string id = stage.bus.store_payload(big, of_type("a/b", "zstd"));
    Client client(stage);
    client.send_bytes(ask("GET", "/messages/" + empty) +
                      ask("GET", "/messages/" + id, "Accept-Encoding: zstd\r\n") +
                      ask("GET", "/messages/" + id, "Range: bytes=99999999-\r\n"));
    const auto nothing = client.response();
    EXPECT_EQ(nothing.status, 200);
    EXPECT_EQ(nothing.headers.at("content-length"), "0");
    const auto stored = client.response();
    std::string chunks;
    for (const std::string& chunk : stage.bus.payloads.at(id).chunks()) chunks += chunk;
    EXPECT_TRUE(stored.body == chunks);
    EXPECT_EQ(stored.headers.at("content-encoding"), "zstd");
    EXPECT_EQ(stored.headers.count("repr-digest"), 0U);
    const auto beyond = client.response();
    EXPECT_EQ(beyond.status, 416);
    EXPECT_EQ(beyond.headers.at("content-range"), "bytes */" + std::to_string(big.size()));
}

TEST_F(Payloads, DownloadOfGzipIsOneMember) {
    std::string words;
    while (words.size() < kBig) words += "word" + std::to_string(words.size() % 997);
    for (const std::string& content :
         {big, words, std::string("x"), big.substr(0, kPiece), big.substr(0, kPiece + 1)}) {
        const std::string id = stage.bus.store_payload(content, of_type("a/b", "gzip"));
        Client client(stage);
        client.send_bytes(ask("GET", "/messages/" + id, "Accept-Encoding: gzip\r\n") +
                          ask("HEAD", "/messages/" + id, "Accept-Encoding: gzip\r\n") +
                          ask("GET", "/messages/" + id));
        const auto whole = client.response();
        EXPECT_EQ(whole.status, 200);
        EXPECT_EQ(whole.headers.at("content-encoding"), "gzip");
        EXPECT_EQ(whole.headers.at("content-length"), std::to_string(whole.body.size()));
        std::string back(content.size(), '?');
        ASSERT_TRUE(decompress(Compression::kGzip, whole.body, back.data(), back.size()))
            << "one member, with nothing behind it";
        EXPECT_TRUE(back == content);
        EXPECT_EQ(client.response(false).headers, whole.headers);
        EXPECT_TRUE(client.response().body == content);
    }
}

TEST_F(Payloads, ChunksThatAreNotWhatThePayloadSays) {
    for (const int good : {0, 1}) {
        const std::string id = stage.bus.store_payload(big, of_type("a/b", "gzip"));
        stage.bus.held = true;
        Client client(stage);
        client.send_bytes(ask("GET", "/messages/" + id, "Accept-Encoding: gzip\r\n"));
        for (int i = 0; i < 1 + good; ++i) {
            ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
            stage.bus.answer_one();
        }
        stage.bus.payloads.at(id).what.compression = "zstd";
        stage.bus.held = false;
        const auto answer = client.response();
        EXPECT_EQ(answer.status, good == 0 ? 500 : 200);
        if (good == 0) continue;
        EXPECT_TRUE(client.until_eof());
        EXPECT_GT(answer.body.size(), kPiece);
        EXPECT_LT(answer.body.size(), std::stoull(answer.headers.at("content-length")));
    }
}

TEST_F(Payloads, ASlowReaderHoldsTwoPieces) {
    const std::string large = noise(60 * kPiece);
    const std::string id = stage.bus.store_payload(large, of_type("a/b"));
    Client client(stage, 4096);
    client.send_bytes(ask("GET", "/messages/" + id));
    const auto connection = [&] { return stage.server().listener().find(1); };
    std::size_t most = 0;
    while (client.bytes.size() < large.size() && !client.eof) {
        for (int i = 0; i < 20; ++i) stage.turn();
        if (connection() != nullptr) most = std::max(most, connection()->buffered());
        client.receive(300'000);
        // What has been read and has not left: two pieces, and what the kernel holds.
        ASSERT_LE(stage.bus.pieces_read * kPiece, client.bytes.size() + 2 * kPiece + (8U << 20));
    }
    EXPECT_LE(most, 2 * kPiece + 16 * 1024);
    EXPECT_TRUE(client.bytes.ends_with(large));
}

TEST_F(Payloads, TheNextPieceIsAskedForWhileTheLastLeaves) {
    const std::string id = stage.bus.store_payload(big, of_type("a/b"));
    stage.bus.held = true;
    Client client(stage);
    client.send_bytes(ask("GET", "/messages/" + id));
    ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
    stage.bus.answer_one();
    constexpr std::size_t kPieces = 11;
    for (std::size_t piece = 1; piece <= kPieces; ++piece) {
        for (int i = 0; i < 10; ++i) stage.turn();
        ASSERT_EQ(stage.bus.waiting.size(), 1U) << "one session reads one after the other";
        client.receive();
        if (piece == 1) {
            EXPECT_EQ(client.bytes, "") << "no head before there is something";
        }
        stage.bus.answer_one();
        EXPECT_EQ(stage.bus.waiting.size(), piece < kPieces ? 1U : 0U)
            << "asked for before the last one is written";
        ASSERT_TRUE(client.until(
            [&] { return client.bytes.size() >= std::min(piece * kPiece, big.size()); }));
    }
    EXPECT_TRUE(client.until([&] { return client.bytes.ends_with(big); }));
}

TEST_F(Payloads, TroubleInTheMiddleEndsTheConnectionEarly) {
    const std::string id = stage.bus.store_payload(big, of_type("a/b"));
    stage.bus.held = true;
    const Error damaged{
        .code = "internal", .message = "damaged", .hint = {}, .sqlstate = {}, .field = {}};
    for (const int good : {0, 1}) {
        Client client(stage);
        client.send_bytes(ask("GET", "/messages/" + id));
        ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
        stage.bus.answer_one();
        for (int i = 0; i < good; ++i) {
            ASSERT_TRUE(client.until([&] { return !stage.bus.waiting.empty(); }));
            stage.bus.answer_one();
        }
        stage.bus.failure = damaged;
        ASSERT_TRUE(client.until([&] {
            while (!stage.bus.waiting.empty()) stage.bus.answer_one();
            return client.eof || (good == 0 && client.bytes.ends_with("}"));
        }));
        stage.bus.failure.reset();
        if (good == 0) {
            EXPECT_EQ(client.response().status, 500);
        } else {
            const auto partial = client.response();
            EXPECT_EQ(partial.status, 200);
            EXPECT_TRUE(partial.body == big.substr(0, kPiece)) << "what was good has come";
        }
    }
}

TEST_F(Payloads, AClientThatLeavesStopsTheReading) {
    const std::string id = stage.bus.store_payload(noise(60 * kPiece), of_type("a/b"));
    {
        Client client(stage, 4096);
        client.send_bytes(ask("GET", "/messages/" + id));
        ASSERT_TRUE(client.until([&] { return client.bytes.size() > 1000; }));
    }
    ASSERT_TRUE(stage.until([&] { return stage.server().listener().size() == 0; }));
    const std::size_t read = stage.bus.pieces_read;
    for (int i = 0; i < 100; ++i) stage.turn();
    EXPECT_EQ(stage.bus.pieces_read, read);
    EXPECT_LT(read, 60U);
}

TEST_F(Payloads, UploadInOnePiece) {
    Client client(stage);
    client.send_bytes(post("hello", "Content-Type: text/plain\r\n") +
                      ask("POST", "/payloads", "Transfer-Encoding: chunked\r\n") +
                      chunked("world", 2) + post("") + ask("GET", "/healthz"));
    const auto first = client.response();
    EXPECT_EQ(first.status, 201);
    const StoredPayload& stored = at(stage, first.headers.at("location"));
    EXPECT_EQ(stored.content, "hello");
    EXPECT_EQ(stored.what.content_type, "text/plain");
    EXPECT_EQ(stored.state.kind, UploadState::Kind::kComplete);
    EXPECT_EQ(json::parse(first.body), json({{"payload", first.headers.at("location").substr(10)},
                                             {"bytes", 5},
                                             {"checksum", "sha256:" + hex_of(sha256("hello"))}}));
    const auto second = client.response();
    EXPECT_EQ(at(stage, second.headers.at("location")).content, "world");
    EXPECT_EQ(json::parse(second.body)["bytes"], 5);
    EXPECT_EQ(at(stage, second.headers.at("location")).what.content_type,
              "application/octet-stream");
    const auto empty = client.response();
    EXPECT_EQ(empty.status, 201);
    EXPECT_EQ(json::parse(empty.body)["bytes"], 0);
    EXPECT_EQ(client.response().status, 200);
    EXPECT_EQ(stage.bus.puts, 3) << "one transaction each";
}

TEST_F(Payloads, UploadInManyPieces) {
    for (const bool in_chunks : {false, true}) {
        Client client(stage);
        stage.bus.pieces_written.clear();
        client.send_bytes(in_chunks ? ask("POST", "/payloads", "Transfer-Encoding: chunked\r\n") +
                                          chunked(big)
                                    : post(big));
        client.send_bytes(ask("GET", "/healthz"));
        const auto answer = client.response();
        EXPECT_EQ(answer.status, 201) << answer.body;
        EXPECT_TRUE(at(stage, answer.headers.at("location")).content == big);
        EXPECT_EQ(json::parse(answer.body)["checksum"], "sha256:" + hex_of(sha256(big)));
        EXPECT_EQ(stage.bus.pieces_written.size(), 11U);
        EXPECT_EQ(stage.bus.pieces_written.front(), kPiece);
        EXPECT_EQ(client.response().body, "ok\n") << "the connection goes on";
    }
    EXPECT_EQ(stage.bus.puts, 0);
}

TEST_F(Payloads, ASlowDatabaseStopsTheReading) {
    stage.bus.held = true;
    Client client(stage);
    const std::string large = noise(80 * kPiece);
    const std::string wire = post(large);
    std::string_view rest = wire;
    std::size_t stuck = 0;
    while (stuck < 200) {
        const std::size_t sent = client.try_send(rest.substr(0, 1 << 20));
        rest.remove_prefix(sent);
        stuck = sent == 0 ? stuck + 1 : 0;
        stage.turn();
    }
    EXPECT_EQ(stage.bus.waiting.size(), 1U) << "the opening";
    EXPECT_GT(rest.size(), 40 * kPiece) << "the kernel's buffers are full, nobody reads";
    while (!rest.empty() || !stage.bus.waiting.empty()) {
        if (!stage.bus.waiting.empty()) stage.bus.answer_one();
        EXPECT_LE(stage.bus.waiting.size(), 1U) << "one piece is with the database at a time";
        for (int i = 0; i < 5; ++i) {
            rest.remove_prefix(client.try_send(rest.substr(0, 1 << 20)));
            stage.turn();
        }
    }
    stage.bus.held = false;  // what the kernel still has is to be written, too
    const auto answer = client.response();
    EXPECT_EQ(answer.status, 201);
    EXPECT_TRUE(at(stage, answer.headers.at("location")).content == large);
}

TEST_F(Payloads, ExpectContinue) {
    stage.bus.max_payload = 20 * kPiece;
    Client client(stage);
    client.send_bytes(
        ask("POST", "/payloads",
            "Expect: 100-continue\r\nContent-Length: " + std::to_string(big.size()) + "\r\n"));
    const auto go = client.response();
    EXPECT_EQ(go.status, 100);
    client.send_bytes(big);
    const auto done = client.response();
    EXPECT_EQ(done.status, 201);
    EXPECT_EQ(done.headers.at("location"), go.headers.at("location"))
        << "to be resumed if it breaks";
    client.send_bytes(ask("POST", "/payloads", "Expect: 100-continue\r\nContent-Length: 2\r\n"));
    EXPECT_EQ(client.response().status, 100);
    client.send_bytes("ab");
    EXPECT_EQ(client.response().status, 201);
    client.send_bytes(
        ask("POST", "/payloads", "Expect: 100-continue\r\nContent-Length: 999999999\r\n"));
    EXPECT_EQ(client.response().status, 413) << "before the body";
    Client strange(stage);
    strange.send_bytes(ask("POST", "/payloads", "Expect: something\r\nContent-Length: 2\r\n"));
    EXPECT_EQ(strange.response().status, 417);
}

TEST_F(Payloads, TooLong) {
    stage.bus.max_payload = 3 * kPiece;
    Client client(stage);
    client.send_bytes(ask("POST", "/payloads", "Transfer-Encoding: chunked\r\n") + chunked(big));
    EXPECT_EQ(client.response().status, 413);
    ASSERT_TRUE(client.until_eof()) << "there is more of the body: no telling where it ends";
    EXPECT_EQ(stage.bus.aborts, 1);
    Client announced(stage);
    announced.send_bytes(post(big));
    EXPECT_EQ(announced.response().status, 413);
    EXPECT_EQ(stage.bus.aborts, 1) << "nothing had been opened";
}

TEST_F(Payloads, Digests) {
    const std::string right = digest_field(sha256("hello"));
    const std::string wrong = digest_field(sha256("other"));
    const auto status = [&](const std::string& headers) {
        Client client(stage);
        client.send_bytes(post("hello", headers));
        return client.response().status;
    };
    EXPECT_EQ(status("Repr-Digest: " + right + "\r\n"), 201);
    EXPECT_EQ(status("Content-Digest: sha-512=:AA==:, " + right + "\r\n"), 201);
    EXPECT_EQ(status("Repr-Digest: " + wrong + "\r\n"), 422);
    EXPECT_EQ(status("Content-Digest: " + wrong + "\r\n"), 422);
    EXPECT_EQ(status("Content-Digest: " + right + "\r\nRepr-Digest: " + wrong + "\r\n"), 400);
    EXPECT_EQ(status("Repr-Digest: sha-512=:AA==:\r\n"), 400);
    EXPECT_EQ(status("Repr-Digest: nonsense\r\n"), 400);
    EXPECT_EQ(status("Upload-Complete: ?0\r\nRepr-Digest: " + right + "\r\n"), 400);
    Client large(stage);
    large.send_bytes(post(big, "Repr-Digest: " + wrong + "\r\n"));
    EXPECT_EQ(large.response().status, 422);
    EXPECT_EQ(stage.bus.aborts, 1);
}

TEST_F(Payloads, BadUploads) {
    const auto status = [&](const std::string& request) {
        Client client(stage);
        client.send_bytes(request);
        return client.response(!request.starts_with("HEAD")).status;
    };
    EXPECT_EQ(status(post("x", "Content-Encoding: gzip\r\n")), 415);
    EXPECT_EQ(status(post("x", "Content-Encoding: identity\r\n")), 201);
    EXPECT_EQ(status(post("x", "Content-Type: nonsense\r\n")), 400);
    EXPECT_EQ(status(post("x", "Content-Type: a/b\r\nContent-Type: c/d\r\n")), 400);
    EXPECT_EQ(status(post("x", "Upload-Complete: yes\r\n")), 400);
    EXPECT_EQ(status(post("x", "Upload-Offset: 5\r\n")), 400);
    EXPECT_EQ(status(post("x", "Upload-Length: 5\r\n")), 400);
    EXPECT_EQ(status(post("x", "Origin: http://evil.example\r\n")), 403);
    EXPECT_EQ(status(ask("GET", "/payloads")), 405);
    EXPECT_EQ(status(ask("PUT", "/payloads/01990000-0000-7000-8000-000000000001")), 405);
    EXPECT_EQ(status(ask("GET", "/payloads/01990000-0000-7000-8000-000000000001")), 405);
    EXPECT_EQ(status(ask("HEAD", "/payloads/x")), 400);
    EXPECT_EQ(status(ask("HEAD", "/payloads/01990000-0000-7000-8000-0000000000ff")), 404);
    EXPECT_EQ(status(ask("PATCH", "/payloads/01990000-0000-7000-8000-0000000000ff")), 400);
    EXPECT_EQ(status(ask("PATCH", "/payloads/01990000-0000-7000-8000-0000000000ff",
                         "Upload-Offset: 0\r\n")),
              404);
    for (const char* framing : {"5\r\nhelloXX", "zz\r\n", "5\nhello\r\n"})
        EXPECT_EQ(status(ask("POST", "/payloads", "Transfer-Encoding: chunked\r\n") + framing), 400)
            << framing;
    const int open_ones = static_cast<int>(std::count_if(
        stage.bus.payloads.begin(), stage.bus.payloads.end(), [](const auto& payload) {
            return payload.second.state.kind == UploadState::Kind::kPending;
        }));
    EXPECT_EQ(open_ones, 0) << "nothing is left behind";
    EXPECT_EQ(status(ask("GET", "/healthz")), 200);
}

TEST_F(Payloads, UploadInParts) {
    Client client(stage);
    client.send_bytes(
        ask("POST", "/payloads",
            "Upload-Complete: ?0\r\nUpload-Length: " + std::to_string(big.size()) + "\r\n"));
    const auto created = client.response();
    EXPECT_EQ(created.status, 201);
    EXPECT_EQ(created.headers.at("upload-complete"), "?0");
    const std::string address = created.headers.at("location");
    const auto patch = [&](std::size_t from, std::size_t to, const std::string& headers = "") {
        client.send_bytes(ask("PATCH", address,
                              "Upload-Offset: " + std::to_string(from) + "\r\nContent-Length: " +
                                  std::to_string(to - from) + "\r\n" + headers) +
                          big.substr(from, to - from));
        return client.response();
    };
    const auto offset = [&] {
        client.send_bytes(ask("HEAD", address));
        const auto state = client.response(false);
        EXPECT_EQ(state.status, 200);
        EXPECT_EQ(state.headers.at("cache-control"), "no-store");
        EXPECT_EQ(state.headers.at("upload-length"), std::to_string(big.size()));
        return state.headers.at("upload-offset") + state.headers.at("upload-complete");
    };
    EXPECT_EQ(offset(), "0?0");
    const auto first = patch(0, 1'000'000);
    EXPECT_EQ(first.status, 204);
    EXPECT_EQ(first.headers.at("upload-offset"), "1000000");
    EXPECT_EQ(first.headers.count("content-length"), 0U);
    EXPECT_EQ(offset(), "1000000?0");
    const auto wrong = patch(0, 1000);
    EXPECT_EQ(wrong.status, 409);
    EXPECT_EQ(wrong.headers.at("upload-offset"), "1000000");
    EXPECT_EQ(patch(1'000'000, 1'000'500, "Upload-Complete: ?1\r\n").status, 400) << "too short";
    EXPECT_EQ(offset(), "1000500?0");
    EXPECT_EQ(
        patch(1'000'500, 1'000'501, "Content-Digest: " + digest_field(sha256("x")) + "\r\n").status,
        400);
}

TEST_F(Payloads, PartsBecomeAWhole) {
    Client client(stage);
    client.send_bytes(ask("POST", "/payloads", "Upload-Complete: ?0\r\nContent-Length: 5\r\n") +
                      "hello");
    const std::string address = client.response().headers.at("location");
    EXPECT_EQ(at(stage, address).content, "hello");
    client.send_bytes(ask("PATCH", address,
                          "Upload-Offset: 5\r\nContent-Length: 6\r\nRepr-Digest: " +
                              digest_field(sha256("hello world")) + "\r\n") +
                      " world");
    const auto done = client.response();
    EXPECT_EQ(done.status, 200);
    EXPECT_EQ(json::parse(done.body)["bytes"], 11);
    EXPECT_EQ(at(stage, address).state.kind, UploadState::Kind::kComplete);
    client.send_bytes(ask("PATCH", address, "Upload-Offset: 11\r\nContent-Length: 1\r\n") + "!");
    const auto late = client.response();
    EXPECT_EQ(late.status, 409);
    EXPECT_EQ(late.headers.at("upload-complete"), "?1");
    Client other(stage);
    other.send_bytes(ask("HEAD", address));
    EXPECT_EQ(other.response(false).headers.at("repr-digest"), digest_field(sha256("hello world")));
}

TEST_F(Payloads, WhatABrokenUploadBroughtIsKept) {
    Client creator(stage);
    creator.send_bytes(
        ask("POST", "/payloads",
            "Upload-Complete: ?0\r\nUpload-Length: " + std::to_string(big.size()) + "\r\n"));
    const std::string address = creator.response().headers.at("location");
    const std::size_t broken_at = 2 * kPiece + 777;
    {
        Client client(stage);
        client.send_bytes(
            ask("PATCH", address,
                "Upload-Offset: 0\r\nContent-Length: " + std::to_string(big.size()) + "\r\n") +
            big.substr(0, broken_at));
        client.shut_sending();
        EXPECT_EQ(client.response().status, 400);
    }
    ASSERT_TRUE(stage.until([&] { return at(stage, address).content.size() == broken_at; }));
    Client client(stage);
    client.send_bytes(ask("PATCH", address,
                          "Upload-Offset: " + std::to_string(broken_at) + "\r\nContent-Length: " +
                              std::to_string(big.size() - broken_at) + "\r\n") +
                      big.substr(broken_at));
    EXPECT_EQ(client.response().status, 200);
    EXPECT_TRUE(at(stage, address).content == big);
}

TEST_F(Payloads, AnUploadIsGivenUp) {
    Client client(stage);
    client.send_bytes(ask("POST", "/payloads", "Upload-Complete: ?0\r\nContent-Length: 5\r\n") +
                      "hello");
    const std::string address = client.response().headers.at("location");
    client.send_bytes(ask("DELETE", address, "Content-Length: 1\r\n") + "x");
    EXPECT_EQ(client.response().status, 413);
    EXPECT_EQ(stage.bus.aborts, 0);
    Client other(stage);
    other.send_bytes(ask("DELETE", address));
    const auto gone = other.response();
    EXPECT_EQ(gone.status, 204);
    EXPECT_EQ(gone.headers.count("content-length"), 0U);
    other.send_bytes(ask("HEAD", address));
    EXPECT_EQ(other.response(false).status, 410);
    other.send_bytes(ask("DELETE", "/payloads/01990000-0000-7000-8000-0000000000ff"));
    EXPECT_EQ(other.response().status, 404);
    other.send_bytes(ask("DELETE", "/payloads/x"));
    EXPECT_EQ(other.response().status, 400);
    other.send_bytes(ask("DELETE", "/payloads"));
    EXPECT_EQ(other.response().status, 405);
    other.send_bytes(ask("DELETE", address, "Origin: http://evil.example\r\n"));
    EXPECT_EQ(other.response().status, 403);
    EXPECT_EQ(stage.bus.aborts, 2);
}

TEST_F(Payloads, ABrokenUploadNobodyCanResumeIsGivenUp) {
    {
        Client client(stage);
        client.send_bytes(
            ask("POST", "/payloads", "Content-Length: " + std::to_string(big.size()) + "\r\n") +
            big.substr(0, 3 * kPiece));
        ASSERT_TRUE(client.until([&] { return stage.bus.pieces_written.size() == 3; }));
    }
    EXPECT_TRUE(stage.until([&] { return stage.bus.aborts == 1; }));
}

TEST_F(Payloads, TransfersAreBounded) {
    Stage small([](Config& config) { config.max_transfers = 1; });
    small.bus.held = true;
    Client first(small);
    first.send_bytes(post("hello"));
    ASSERT_TRUE(first.until([&] { return small.bus.waiting.size() == 1; }));
    Client second(small);
    second.send_bytes(post("hello"));
    const auto refused = second.response();
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.headers.count("retry-after"), 1U);
    small.bus.held = false;
    EXPECT_EQ(first.response().status, 201);
    Client third(small);
    third.send_bytes(post("hello"));
    EXPECT_EQ(third.response().status, 201);
}

TEST_F(Payloads, StalledClientsAreCutOffAndSlowOnesAreNot) {
    Stage quick([](Config& config) { config.idle_timeout = 1; });
    Client stalled(quick);
    stalled.send_bytes(ask("POST", "/payloads", "Content-Length: 100\r\n") + "hello");
    EXPECT_EQ(stalled.response().status, 408);

    const std::string id = quick.bus.store_payload(noise(60 * kPiece), of_type("a/b"));
    Client deaf(quick, 4096);
    deaf.send_bytes(ask("GET", "/messages/" + id));
    ASSERT_TRUE(quick.until([&] { return quick.server().listener().find(2) != nullptr; }));
    ASSERT_TRUE(quick.until([&] { return quick.server().listener().find(2) == nullptr; }));

    // It takes a little now and then, for three times the time-out: less than the kernel holds.
    Client slow(quick);
    slow.send_bytes(ask("GET", "/messages/" + id));
    const std::uint64_t start = uv_now(quick.loop());
    std::uint64_t read_at = start;
    ASSERT_TRUE(quick.until([&] {
        if (uv_now(quick.loop()) >= read_at + 50) {
            read_at = uv_now(quick.loop());
            slow.receive(60'000);
        }
        return uv_now(quick.loop()) > start + 3000;
    }));
    EXPECT_FALSE(slow.eof);
    EXPECT_NE(quick.server().listener().find(3), nullptr);

    // The database takes its time: that is not the client's fault.
    quick.bus.held = true;
    Client waiting(quick);
    waiting.send_bytes(post("hello"));
    const std::uint64_t then = uv_now(quick.loop());
    ASSERT_TRUE(waiting.until([&] { return uv_now(quick.loop()) > then + 1500; }));
    quick.bus.held = false;
    EXPECT_EQ(waiting.response().status, 201);
}

TEST_F(Payloads, TheServerStopsInTheMiddle) {
    Client creator(stage);
    creator.send_bytes(ask("POST", "/payloads", "Upload-Complete: ?0\r\n"));
    const std::string address = creator.response().headers.at("location");
    Client uploading(stage);
    uploading.send_bytes(
        ask("PATCH", address, "Upload-Offset: 0\r\nContent-Length: 100000000\r\n") + big);
    ASSERT_TRUE(uploading.until([&] { return !stage.bus.pieces_written.empty(); }));
    const std::string id = stage.bus.store_payload(big, of_type("a/b"));
    Client downloading(stage);
    downloading.send_bytes(ask("GET", "/messages/" + id));
    ASSERT_TRUE(downloading.until([&] { return downloading.bytes.size() > 1000; }));
    bool stopped = false;
    stage.server().stop([&] { stopped = true; });
    const auto broken = uploading.response();
    EXPECT_EQ(broken.status, 503);
    EXPECT_EQ(broken.headers.at("location"), address);
    const auto whole = downloading.response();
    EXPECT_TRUE(whole.body == big) << "what is on its way is finished";
    EXPECT_EQ(whole.headers.at("connection"), "keep-alive");
    uploading.shut_sending();
    downloading.shut_sending();
    creator.shut_sending();
    EXPECT_TRUE(stage.until([&] { return stopped; }));
    stage.assume_stopped();
}

TEST_F(Payloads, RandomUploadsThatBreakAndAreResumed) {
    Random random("broken uploads");
    for (int run = 0; run < 20; ++run) {
        const std::string content = noise(static_cast<std::size_t>(random.number(0, 4 * kPiece)));
        const bool length_known = random.chance(0.5);
        Client creator(stage);
        creator.send_bytes(ask(
            "POST", "/payloads",
            "Upload-Complete: ?0\r\n" +
                (length_known ? "Upload-Length: " + std::to_string(content.size()) + "\r\n" : "")));
        const std::string address = creator.response().headers.at("location");
        for (bool done = false; !done;) {
            creator.send_bytes(ask("HEAD", address));
            const auto state = creator.response(false);
            const std::size_t offset = std::stoull(state.headers.at("upload-offset"));
            ASSERT_LE(offset, content.size());
            std::string wire = content.substr(offset);
            const bool in_chunks = random.chance(0.5);
            const std::string length = std::to_string(wire.size());
            if (in_chunks)
                wire = chunked(wire, static_cast<std::size_t>(random.number(1000, 300'000)));
            const bool breaks = random.chance(0.7) && !wire.empty();
            Client client(stage);
            client.send_bytes(ask("PATCH", address,
                                  "Upload-Offset: " + std::to_string(offset) + "\r\n" +
                                      (in_chunks ? "Transfer-Encoding: chunked\r\n"
                                                 : "Content-Length: " + length + "\r\n")));
            if (breaks)
                wire.resize(
                    static_cast<std::size_t>(random.number(0, static_cast<int>(wire.size()) - 1)));
            client.send_bytes(wire);
            if (breaks && random.chance(0.5)) continue;  // it goes without a word
            if (breaks) client.shut_sending();
            const auto answer = client.response();
            // A part of an earlier connection may have been written after we asked.
            if (answer.status == 409) continue;
            if (!breaks) {
                EXPECT_EQ(answer.status, 200) << answer.body;
                done = true;
            }
        }
        EXPECT_TRUE(at(stage, address).content == content);
        EXPECT_EQ(at(stage, address).state.sha256, sha256(content));
    }
}

}  // namespace
}  // namespace herald::test
