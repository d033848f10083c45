#include "deadlines.h"

namespace herald {

void Deadlines::put(std::size_t place, TimedItem* item) {
    heap_[place] = item;
    item->place_ = static_cast<std::uint32_t>(place);
}

void Deadlines::sift_up(std::size_t place) {
    TimedItem* item = heap_[place];
    while (place > 0) {
        const std::size_t parent = (place - 1) / 2;
        if (heap_[parent]->due_ <= item->due_) break;
        put(place, heap_[parent]);
        place = parent;
    }
    put(place, item);
}

void Deadlines::sift_down(std::size_t place) {
    TimedItem* item = heap_[place];
    for (;;) {
        std::size_t child = 2 * place + 1;
        if (child >= heap_.size()) break;
        if (child + 1 < heap_.size() && heap_[child + 1]->due_ < heap_[child]->due_) ++child;
        if (item->due_ <= heap_[child]->due_) break;
        put(place, heap_[child]);
        place = child;
    }
    put(place, item);
}

void Deadlines::schedule(TimedItem& item, std::uint64_t due) {
    const bool later = due > item.due_;
    item.due_ = due;
    if (item.place_ == TimedItem::kNotScheduled) {
        heap_.push_back(&item);
        sift_up(heap_.size() - 1);
    } else if (later) {
        sift_down(item.place_);
    } else {
        sift_up(item.place_);
    }
}

void Deadlines::cancel(TimedItem& item) {
    const std::size_t place = item.place_;
    if (place == TimedItem::kNotScheduled) return;
    item.place_ = TimedItem::kNotScheduled;
    TimedItem* last = heap_.back();
    heap_.pop_back();
    if (last == &item) return;
    put(place, last);
    sift_up(place);
    sift_down(last->place_);
}

void Deadlines::run(std::uint64_t now) {
    while (!heap_.empty() && heap_.front()->due_ <= now) {
        TimedItem* item = heap_.front();
        cancel(*item);
        item->on_due(now);
    }
}

}  // namespace herald
