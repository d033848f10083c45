#include "settings.h"

#include "pg.h"

namespace herald {

constinit bool setting_notify = true;
constinit int setting_idempotency_window = 86400;

void define_settings() {
    DefineCustomBoolVariable(
        "herald.notify", "Announces messages by NOTIFY.",
        "Off: messages are stored, and neither LISTEN nor a notifier hears of them until a later "
        "announced message makes the notifier read on.",
        &setting_notify, true, PGC_SUSET, 0, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "herald.idempotency_window", "How long an idempotency key is remembered.",
        "A second send with the same key in the same topic within this time stores nothing and "
        "returns the first message's id. 0 remembers nothing.",
        &setting_idempotency_window, 86400, 0, INT_MAX, PGC_USERSET, GUC_UNIT_S, nullptr, nullptr,
        nullptr);
    MarkGUCPrefixReserved("herald");
}

}  // namespace herald
