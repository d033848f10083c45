#include "announce.h"

#include "settings.h"

namespace herald {

namespace {

constexpr const char* kDoorbell = "herald";
// PostgreSQL refuses a payload of this many bytes or more.
constexpr std::int64_t kNotifyLimit = 8000;
constexpr std::size_t kDigestBytes = PG_SHA256_DIGEST_LENGTH;

// The last position of this transaction that was announced; 0 = none.
constinit std::int64_t doorbell_pos = 0;

struct DigestText {
    char text[2 * kDigestBytes + 1];
};

DigestText sha256_hex(std::string_view data) {
    std::uint8_t digest[kDigestBytes];
    pg_cryptohash_ctx* context = pg_cryptohash_create(PG_SHA256);
    if (context == nullptr || pg_cryptohash_init(context) < 0 ||
        pg_cryptohash_update(context, reinterpret_cast<const std::uint8_t*>(data.data()),
                             data.size()) < 0 ||
        pg_cryptohash_final(context, digest, sizeof digest) < 0)
        elog(ERROR, "herald: cannot compute SHA-256: %s", pg_cryptohash_error(context));
    pg_cryptohash_free(context);
    DigestText hex;
    hex_encode(reinterpret_cast<const char*>(digest), sizeof digest, hex.text);
    hex.text[2 * kDigestBytes] = '\0';
    return hex;
}

}  // namespace

const char* channel_of(std::string_view topic) {
    if (topic.size() < NAMEDATALEN) return pnstrdup(topic.data(), topic.size());
    return psprintf("herald:%.32s", sha256_hex(topic).text);
}

std::string_view envelope_of(const Row& row, std::int64_t max_bytes) {
    const MessageView view = view_of(row);
    StringInfoSink sink;
    const auto fits = [&] { return sink.out->len <= max_bytes; };
    // Escaping only adds bytes, so longer content is never written out in vain.
    if (view.content_is_reference || static_cast<std::int64_t>(view.content.size()) <= max_bytes) {
        write_envelope(sink, view, EnvelopeForm::kFull);
        if (fits()) return sink.view();
    }
    if (view.content_is_reference) {
        resetStringInfo(sink.out);
        write_envelope(sink, view, EnvelopeForm::kBareReference);
        return sink.view();
    }
    const DigestText digest = sha256_hex(view.content);
    const std::string_view checksum(digest.text, 2 * kDigestBytes);
    resetStringInfo(sink.out);
    write_envelope(sink, view, EnvelopeForm::kReference, checksum);
    if (fits()) return sink.view();
    resetStringInfo(sink.out);
    write_envelope(sink, view, EnvelopeForm::kBareReference, checksum);
    return sink.view();
}

std::int64_t announce_on(const char* channel, const Row& row) {
    const std::string_view envelope = envelope_of(row, kNotifyLimit - 1);
    Async_Notify(channel, envelope.data());
    return static_cast<std::int64_t>(envelope.size());
}

void ring_doorbell_at(std::int64_t pos) {
    Async_Notify(kDoorbell, psprintf("%lld", static_cast<long long>(pos)));
}

void announce(const Row& row) {
    if (!setting_notify) return;
    (void)announce_on(channel_of(row.text(kTopic)), row);
    if (row.pos() > doorbell_pos) doorbell_pos = row.pos();
}

void announce_reset() {
    Async_Notify(kDoorbell, "reset");
}

void ring_doorbell() {
    if (doorbell_pos == 0) return;
    ring_doorbell_at(doorbell_pos);
    doorbell_pos = 0;
}

void forget_doorbell() {
    doorbell_pos = 0;
}

}  // namespace herald
