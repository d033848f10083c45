#include "settings.h"

#include "pg.h"

namespace herald {

constinit bool setting_notify = true;
constinit bool setting_maintain = true;
constinit int setting_idempotency_window = 86400;
constinit int setting_max_hold = 20;
constinit int setting_segment_size = 1024 * 1024;
constinit int setting_segment_age = 86400;
constinit int setting_inline_limit = 1024;
constinit int setting_max_payload = 1024 * 1024;
constinit int setting_upload_timeout = 3600;
constinit bool setting_audit = false;
constinit int setting_archive_interval = 60;
constinit int setting_max_databases = 16;
constinit int setting_max_channels = 4096;

void define_settings() {
    DefineCustomBoolVariable(
        "herald.notify", "Announces messages by NOTIFY.",
        "Off: messages are stored, and neither LISTEN nor a notifier hears of them until a later "
        "announced message makes the notifier read on. With the engine loaded the dispatcher's "
        "setting counts: change it for the server or the database.",
        &setting_notify, true, PGC_SUSET, 0, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "herald.idempotency_window", "How long an idempotency key is remembered.",
        "A second send with the same key in the same topic within this time stores nothing and "
        "returns the first message's id. 0 remembers nothing.",
        &setting_idempotency_window, 86400, 0, INT_MAX, PGC_USERSET, GUC_UNIT_S, nullptr, nullptr,
        nullptr);
    DefineCustomIntVariable(
        "herald.max_hold", "How long an open transaction may delay the messages of others.",
        "A transaction still open this long after its first message is overtaken: at its commit "
        "its "
        "messages get new positions. Only with the engine loaded.",
        &setting_max_hold, 20, 1, 60'000, PGC_SIGHUP, GUC_UNIT_MS, nullptr, nullptr, nullptr);
    DefineCustomBoolVariable("herald.maintain",
                             "Lets the keeper count the topics and remove old messages by itself.",
                             "Off: only herald.maintain() does. Only with the engine loaded.",
                             &setting_maintain, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "herald.segment_size", "The log goes on in a new segment when the last one is so large.",
        "With its indexes. Segments leave the disk whole, once nothing in them is kept.",
        &setting_segment_size, 1024 * 1024, 64, INT_MAX, PGC_SUSET, GUC_UNIT_KB, nullptr, nullptr,
        nullptr);
    DefineCustomIntVariable(
        "herald.segment_age", "The log goes on in a new segment when the last one is so old.",
        "Sooner if a limit of age for all topics asks for it.", &setting_segment_age, 86400, 1,
        INT_MAX, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("herald.inline_limit",
                            "Contents of messages above this become payloads by themselves.",
                            "The message carries a reference then.", &setting_inline_limit, 1024, 1,
                            1024 * 1024, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("herald.max_payload", "The largest payload that is taken.",
                            "In parts; at once no more than a bytea holds.", &setting_max_payload,
                            1024 * 1024, 1, INT_MAX, PGC_SUSET, GUC_UNIT_KB, nullptr, nullptr,
                            nullptr);
    DefineCustomIntVariable(
        "herald.upload_timeout", "How long a payload is kept that nobody writes to or sends.",
        "An upload expires so long after its last write, a complete payload that is in no message "
        "so long after its completion.",
        &setting_upload_timeout, 3600, 1, INT_MAX, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr,
        nullptr);
    DefineCustomBoolVariable(
        "herald.audit", "Notes in herald.payload_audit who reads which payload when.",
        "A row for each transfer.", &setting_audit, false, PGC_SUSET, 0, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "herald.archive_interval", "How often an archive writes at most.",
        "Messages stay in the log so much longer than the rules of retention say.",
        &setting_archive_interval, 60, 0, INT_MAX, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr,
        nullptr);
    if (process_shared_preload_libraries_in_progress) {
        DefineCustomIntVariable(
            "herald.max_databases", "How many databases with pg_herald the engine serves.", nullptr,
            &setting_max_databases, 16, 1, 1024, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
        DefineCustomIntVariable(
            "herald.max_channels", "How many LISTEN channels the engine tells apart.",
            "With more of them in use, every message is announced whether heard or not.",
            &setting_max_channels, 4096, 16, 1'000'000, PGC_POSTMASTER, 0, nullptr, nullptr,
            nullptr);
    }
    MarkGUCPrefixReserved("herald");
}

}  // namespace herald
