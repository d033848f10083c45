// The settings of the extension (herald.* in pg_settings).
#pragma once

namespace herald {

// herald.notify: whether messages are announced by NOTIFY.
extern bool setting_notify;
// herald.idempotency_window, in seconds: how long an idempotency key is remembered.
extern int setting_idempotency_window;

// Registers the settings; once per backend, when the library is loaded.
void define_settings();

}  // namespace herald
