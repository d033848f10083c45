#include "replay.h"

#include <algorithm>
#include <utility>

#include "clock.h"
#include "core/topic.h"
#include "frame.h"
#include "listener.h"
#include "session.h"

namespace herald {

namespace {

constexpr int kPageRows = 500;

}  // namespace

void Replay::add(std::string id, SubRequest request) {
    const Position after = request.after.value_or(0);
    const bool ask = request.last.has_value() || after > session_.services().hub.position();
    jobs_.push_back(
        {++last_number_, std::move(id), std::move(request.topic), request.last, after, ask});
}

void Replay::advance() {
    const Hub& hub = session_.services().hub;
    while (!jobs_.empty() && !asking_) {
        if (session_.connection().above_low_water()) {
            session_.connection().call_when_drained();
            return;
        }
        Job& job = jobs_.front();
        if (job.ask || job.cursor < hub.ring().floor()) {
            ask(job);
        } else if (finish_from_ring(job)) {
            const Job done = std::move(job);
            jobs_.pop_front();
            session_.go_live(done.topics, done.cursor, done.id);
        }
    }
}

void Replay::cancel(std::string_view topics) {
    const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                    [&](const Job& job) { return job.topics == topics; });
    if (found == jobs_.end()) return;
    session_.refuse(found->id, {.code = "invalid",
                                .message = "unsubscribed before the replay ended",
                                .hint = {},
                                .sqlstate = {},
                                .field = "topic"});
    // A page that is on its way finds its job gone and starts the next one.
    jobs_.erase(found);
}

void Replay::ask(const Job& job) {
    asking_ = true;
    SessionServices& services = session_.services();
    PageRequest request;
    request.topics = job.topics;
    request.after = job.cursor;
    request.last = job.last;
    request.max_rows = kPageRows;
    request.max_bytes = services.page_bytes;
    services.bus.read_page(std::move(request), [&services, session = session_.connection().number(),
                                                number = job.number](const Result<Page>& result) {
        Session* found = services.find(session);
        if (found != nullptr) found->page_came(number, result);
    });
}

void Replay::got(std::uint64_t number, const Result<Page>& result) {
    asking_ = false;
    if (!jobs_.empty() && jobs_.front().number == number) {
        Job& job = jobs_.front();
        if (result) {
            take(job, result.value());
        } else {
            session_.refuse(job.id, result.error());
            session_.drop_subscription(job.topics);
            jobs_.pop_front();
        }
    }
    advance();
}

void Replay::take(Job& job, const Page& page) {
    const Position feed = session_.services().hub.position();
    const bool went_back = !job.last && page.upto < job.cursor;
    if (page.gap) {
        tell_gap(job, page.gap->to, page.gap->why);
    } else if (went_back) {
        tell_gap(job, page.upto, "reset");
    }
    for (const Row& row : page.rows) {
        if (row.pos > feed) break;
        if (wants(job, row.pos, row.topic))
            session_.connection().send_message(Frame::text(row.envelope));
    }
    const Position reached = std::min(page.upto, feed);
    Subscription& subscription = *session_.find_subscription(job.topics);
    if (went_back) {
        job.cursor = subscription.start = page.upto;
    } else {
        job.cursor = std::max(job.cursor, reached);
    }
    if (job.last) {
        // The feed may still be behind the tail; what it brings below the tail is not wanted.
        subscription.start = page.rows.empty() ? job.cursor : page.rows.front().pos - 1;
        job.cursor = std::max(job.cursor, subscription.start);
    }
    job.last.reset();
    job.ask = false;
}

void Replay::tell_gap(Job& job, Position to, std::string_view why) {
    // A gap that reaches beyond its page comes again with the next one.
    if (to <= job.told_gap) return;
    job.told_gap = to;
    session_.send_text(gap_frame(job.topics, job.cursor, to, why));
}

// False when the output is full before the end of the ring.
bool Replay::finish_from_ring(Job& job) {
    const Hub& hub = session_.services().hub;
    const Ring& ring = hub.ring();
    const std::int64_t now_us = unix_microseconds();
    for (std::size_t i = ring.first_above(job.cursor); i < ring.size(); ++i) {
        if (session_.connection().above_low_water()) return false;
        const RingEntry& entry = ring[i];
        job.cursor = entry.pos;
        const bool expired = entry.expires_us != 0 && entry.expires_us <= now_us;
        if (!expired && topic_matches(job.topics, entry.topic) &&
            wants(job, entry.pos, entry.topic))
            session_.connection().send_message(entry.frame);
    }
    job.cursor = std::max(job.cursor, hub.position());
    // One message may be more than the output holds: what follows it would cut a slow client off.
    return !session_.connection().above_low_water();
}

bool Replay::wants(const Job& job, Position pos, std::string_view topic) const {
    return !session_.covered_by_other(job.topics, pos, topic);
}

}  // namespace herald
