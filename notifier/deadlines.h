// Deadlines: which of many timed things is due next, so that one timer serves all connections.
// A binary heap of intrusive items: an item's due time changes in O(log n) without allocation.
// Items must be cancelled before they die.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace herald {

class Deadlines;

class TimedItem {
  public:
    virtual ~TimedItem() = default;
    // The time has come; the item is no longer scheduled.
    virtual void on_due(std::uint64_t now) = 0;

  private:
    friend class Deadlines;
    static constexpr std::uint32_t kNotScheduled = UINT32_MAX;
    std::uint64_t due_ = 0;
    std::uint32_t place_ = kNotScheduled;
};

class Deadlines {
  public:
    // Times are milliseconds of the loop's clock.
    void schedule(TimedItem& item, std::uint64_t due);
    void cancel(TimedItem& item);
    bool empty() const { return heap_.empty(); }
    // Precondition: not empty.
    std::uint64_t next_due() const { return heap_.front()->due_; }
    // Calls on_due of everything due up to `now` (also of what is scheduled meanwhile).
    void run(std::uint64_t now);

  private:
    void put(std::size_t place, TimedItem* item);
    void sift_up(std::size_t place);
    void sift_down(std::size_t place);

    std::vector<TimedItem*> heap_;
};

}  // namespace herald
