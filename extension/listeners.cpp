#include "listeners.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "engine.h"
#include "settings.h"

namespace herald {

namespace {

struct Key {
    Oid database;
    char channel[NAMEDATALEN];
};

struct Entry {
    Key key;
    int sessions;
};

struct Shared {
    LWLock* lock;
    std::atomic<std::int64_t> version;
    int overflow;  // sessions that listen to channels that found no place
};

// What this session listens to. Lives as long as the session.
struct Own {
    char channel[NAMEDATALEN];
    bool kept;     // since an earlier transaction
    bool dropped;  // UNLISTEN in this transaction
    bool counted;  // has a place in the table; otherwise this session counts as overflow
};

constinit Shared* shared = nullptr;
constinit HTAB* table = nullptr;
constinit Own* own = nullptr;
constinit int own_count = 0;
constinit int own_capacity = 0;
constinit bool changed = false;  // in this transaction
constinit bool exit_registered = false;

Key key_of(const char* channel) {
    Key key;
    std::memset(&key, 0, sizeof key);
    key.database = MyDatabaseId;
    strlcpy(key.channel, channel, sizeof key.channel);
    return key;
}

bool count_in(const char* channel) {
    const Key key = key_of(channel);
    bool counted = false;
    with_lwlock(shared->lock, LW_EXCLUSIVE, [&] {
        bool found = false;
        // The table never grows beyond its size: look first.
        const bool room = hash_search(table, &key, HASH_FIND, nullptr) != nullptr ||
                          hash_get_num_entries(table) < setting_max_channels;
        if (room) {
            auto* entry = static_cast<Entry*>(hash_search(table, &key, HASH_ENTER_NULL, &found));
            if (entry != nullptr) {
                entry->sessions = found ? entry->sessions + 1 : 1;
                counted = true;
            }
        }
        if (!counted) ++shared->overflow;
        ++shared->version;
    });
    return counted;
}

void count_out(const Own& channel) {
    const Key key = key_of(channel.channel);
    with_lwlock(shared->lock, LW_EXCLUSIVE, [&] {
        if (channel.counted) {
            auto* entry = static_cast<Entry*>(hash_search(table, &key, HASH_FIND, nullptr));
            if (entry != nullptr && --entry->sessions == 0)
                (void)hash_search(table, &key, HASH_REMOVE, nullptr);
        } else {
            --shared->overflow;
        }
        ++shared->version;
    });
}

void forget_everything(int, Datum) {
    for (int i = 0; i < own_count; ++i) count_out(own[i]);
    own_count = 0;
}

Own* find_own(const char* channel) {
    for (int i = 0; i < own_count; ++i) {
        if (std::strcmp(own[i].channel, channel) == 0) return &own[i];
    }
    return nullptr;
}

int by_name(const void* left, const void* right) {
    return std::strcmp(static_cast<const Channel*>(left)->name,
                       static_cast<const Channel*>(right)->name);
}

template <typename Gone>
void remove_own(Gone&& gone) {
    int kept = 0;
    for (int i = 0; i < own_count; ++i) {
        if (gone(own[i])) {
            count_out(own[i]);
        } else {
            own[kept++] = own[i];
        }
    }
    own_count = kept;
}

}  // namespace

Size listeners_size() {
    return add_size(MAXALIGN(sizeof(Shared)),
                    hash_estimate_size(setting_max_channels, sizeof(Entry)));
}

void start_listeners(LWLock* lock) {
    bool found = false;
    shared = static_cast<Shared*>(ShmemInitStruct("pg_herald listeners", sizeof(Shared), &found));
    if (!found) {
        std::memset(static_cast<void*>(shared), 0, sizeof *shared);
        shared->lock = lock;
    }
    HASHCTL control;
    std::memset(&control, 0, sizeof control);
    control.keysize = sizeof(Key);
    control.entrysize = sizeof(Entry);
    table = ShmemInitHash("pg_herald channels", setting_max_channels, setting_max_channels,
                          &control, HASH_ELEM | HASH_BLOBS);
}

void note_listen(const char* channel) {
    if (std::strlen(channel) >= NAMEDATALEN) return;  // refused by LISTEN itself
    if (Own* known = find_own(channel)) {
        known->dropped = false;
        return;
    }
    if (!exit_registered) {
        before_shmem_exit(forget_everything, 0);
        exit_registered = true;
    }
    if (own_count == own_capacity) {
        const int capacity = Max(8, own_capacity * 2);
        const Size bytes = static_cast<Size>(capacity) * sizeof(Own);
        own = static_cast<Own*>(own == nullptr ? MemoryContextAlloc(TopMemoryContext, bytes)
                                               : repalloc(own, bytes));
        own_capacity = capacity;
    }
    Own entry;
    std::memset(&entry, 0, sizeof entry);
    strlcpy(entry.channel, channel, NAMEDATALEN);
    entry.counted = count_in(entry.channel);
    own[own_count++] = entry;
    changed = true;
}

void note_unlisten(const char* channel) {
    // In a subtransaction it may be rolled back alone, which nobody would tell us.
    if (GetCurrentTransactionNestLevel() > 1) return;
    for (int i = 0; i < own_count; ++i) {
        if (channel == nullptr || std::strcmp(own[i].channel, channel) == 0)
            own[i].dropped = changed = true;
    }
}

void listeners_transaction_ended(bool committed) {
    if (!changed) return;
    changed = false;
    remove_own([&](const Own& entry) { return committed ? entry.dropped : !entry.kept; });
    for (int i = 0; i < own_count; ++i) {
        own[i].kept = true;
        own[i].dropped = false;
    }
}

std::int64_t listeners_version() {
    return shared->version.load();
}

bool ListenedChannels::has(const char* channel) const {
    Channel wanted;
    strlcpy(wanted.name, channel, sizeof wanted.name);
    return everything || std::bsearch(&wanted, channels, static_cast<std::size_t>(count),
                                      sizeof(Channel), by_name) != nullptr;
}

ListenedChannels listened_channels() {
    ListenedChannels result = {};
    result.channels =
        static_cast<Channel*>(palloc(sizeof(Channel) * static_cast<Size>(setting_max_channels)));
    with_lwlock(shared->lock, LW_SHARED, [&] {
        result.everything = shared->overflow > 0;
        HASH_SEQ_STATUS scan;
        hash_seq_init(&scan, table);
        while (const auto* entry = static_cast<const Entry*>(hash_seq_search(&scan))) {
            if (entry->key.database != MyDatabaseId) continue;
            const char* name = entry->key.channel;
            if (std::strcmp(name, "herald") == 0) {
                result.doorbell = true;
                continue;
            }
            if (std::strncmp(name, "herald:", 7) == 0) result.hashed = true;
            Channel& channel = result.channels[result.count++];
            strlcpy(channel.name, name, sizeof channel.name);
            channel.bucket = bucket_of(name);
        }
    });
    qsort(result.channels, static_cast<std::size_t>(result.count), sizeof(Channel), by_name);
    return result;
}

}  // namespace herald
