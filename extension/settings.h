// The settings of the extension (herald.* in pg_settings).
#pragma once

namespace herald {

// herald.notify: whether messages are announced by NOTIFY.
extern bool setting_notify;
// herald.idempotency_window, in seconds: how long an idempotency key is remembered.
extern int setting_idempotency_window;
// herald.max_hold, in milliseconds: how long an open transaction may delay others' messages.
extern int setting_max_hold;
// herald.maintain: whether the keeper works.
extern bool setting_maintain;
// herald.segment_size (kB) and herald.segment_age (seconds): when the log goes on in a new segment.
extern int setting_segment_size;
extern int setting_segment_age;
// herald.inline_limit (kB): contents above it become payloads.
extern int setting_inline_limit;
// herald.max_payload (kB): the largest payload.
extern int setting_max_payload;
// herald.upload_timeout, in seconds: how long a payload is kept that nobody writes or sends.
extern int setting_upload_timeout;
// herald.audit: whether it is noted who reads payloads.
extern bool setting_audit;
// herald.archive_interval, in seconds: how often an archive writes at most.
extern int setting_archive_interval;
// herald.max_databases: how many databases the engine serves.
extern int setting_max_databases;
// herald.max_channels: how many LISTEN channels the engine tells apart.
extern int setting_max_channels;

// Registers the settings; once per backend, when the library is loaded.
void define_settings();

}  // namespace herald
