// Which channels anybody in a database LISTENs to, so that the dispatcher announces only what is
// heard. A superset of the truth: a LISTEN counts from when it is executed, not from its commit,
// and what a rolled-back subtransaction did stays counted until the session ends. If there are more
// channels than herald.max_channels, everything is announced until sessions end.
#pragma once

#include <cstdint>

#include "pg.h"

namespace herald {

Size listeners_size();
// In the start-up hook.
void start_listeners(LWLock* lock);

// Statements of this session, before they are executed.
void note_listen(const char* channel);
void note_unlisten(const char* channel);  // nullptr: all
// At the end of a transaction.
void listeners_transaction_ended(bool committed);

struct Channel {
    char name[NAMEDATALEN];
    int bucket;  // of the topic with this name
};

struct ListenedChannels {
    bool everything;    // too many to know
    bool hashed;        // one of them stands for a long topic
    bool doorbell;      // somebody listens to the doorbell
    int count;          // channels of topics
    Channel* channels;  // ordered by name; in the memory context of the call

    bool has(const char* channel) const;
};

// Changes whenever the set does.
std::int64_t listeners_version();
// The channels listened to in this database. Look after the horizon was computed: who listened
// before a message was committed is in it.
ListenedChannels listened_channels();

}  // namespace herald
