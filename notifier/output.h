// Output: the frames that wait to be written to one connection, in order.
//
// Invariants
// - bytes() is what has not been written yet; a frame leaves the queue when its last byte has.
// - Memory is held only while something waits: chunks come from a pool that all connections of a
//   listener share, so that steady traffic allocates nothing.
// Has no limit of its own: the connection that owns it keeps --max-buffer.
#pragma once

#include <uv.h>

#include <cstddef>
#include <span>

#include "frame.h"

namespace herald {

struct OutputChunk {
    static constexpr std::size_t kFrames = 30;  // makes a chunk 256 bytes

    OutputChunk* next = nullptr;
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    Frame frames[kFrames];
};

// Keeps some unused chunks for the next connection that needs one.
class OutputPool {
  public:
    OutputPool() = default;
    OutputPool(const OutputPool&) = delete;
    OutputPool& operator=(const OutputPool&) = delete;
    ~OutputPool();

    OutputChunk* take();
    // Precondition: the chunk holds no frame.
    void give_back(OutputChunk* chunk);

  private:
    static constexpr std::size_t kKept = 4096;  // chunks, 1 MiB

    OutputChunk* free_ = nullptr;
    std::size_t count_ = 0;
};

class Output {
  public:
    explicit Output(OutputPool& pool) : pool_(pool) {}
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output() { clear(); }

    bool empty() const { return head_ == nullptr; }
    std::size_t bytes() const { return bytes_; }

    void push(Frame frame);
    // Fills buffers from the front of the queue; returns how many.
    std::size_t gather(std::span<uv_buf_t> buffers) const;
    // What is left of the first frame. Precondition: not empty.
    uv_buf_t first() const;
    // `count` bytes have been written.
    void consume(std::size_t count);
    // Forgets everything except the first frame if a part of it has been written, or if
    // `keep_first` says that its bytes are in somebody's hands.
    void drop_unsent(bool keep_first);
    void clear();

  private:
    void pop_front();

    OutputPool& pool_;
    OutputChunk* head_ = nullptr;
    OutputChunk* tail_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t written_ = 0;  // of the first frame
};

}  // namespace herald
