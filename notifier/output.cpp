#include "output.h"

#include <utility>

namespace herald {

OutputPool::~OutputPool() {
    while (free_ != nullptr) delete std::exchange(free_, free_->next);
}

OutputChunk* OutputPool::take() {
    if (free_ == nullptr) return new OutputChunk;
    --count_;
    OutputChunk* chunk = std::exchange(free_, free_->next);
    chunk->next = nullptr;
    chunk->begin = chunk->end = 0;
    return chunk;
}

void OutputPool::give_back(OutputChunk* chunk) {
    if (count_ == kKept) {
        delete chunk;
        return;
    }
    ++count_;
    chunk->next = free_;
    free_ = chunk;
}

void Output::push(Frame frame) {
    if (tail_ == nullptr) {
        head_ = tail_ = pool_.take();
    } else if (tail_->end == OutputChunk::kFrames) {
        tail_->next = pool_.take();
        tail_ = tail_->next;
    }
    bytes_ += frame.size();
    tail_->frames[tail_->end++] = std::move(frame);
}

std::size_t Output::gather(std::span<uv_buf_t> buffers) const {
    std::size_t count = 0;
    for (const OutputChunk* chunk = head_; chunk != nullptr; chunk = chunk->next) {
        for (std::uint32_t i = chunk->begin; i < chunk->end; ++i) {
            if (count == buffers.size()) return count;
            std::string_view wire = chunk->frames[i].wire();
            if (count == 0) wire.remove_prefix(written_);
            // uv_buf_t is not const-correct; nobody writes through it.
            buffers[count++] =
                uv_buf_init(const_cast<char*>(wire.data()), static_cast<unsigned>(wire.size()));
        }
    }
    return count;
}

uv_buf_t Output::first() const {
    uv_buf_t buffer;
    gather({&buffer, 1});
    return buffer;
}

void Output::consume(std::size_t count) {
    bytes_ -= count;
    count += written_;
    written_ = 0;
    while (head_ != nullptr) {
        const std::size_t size = head_->frames[head_->begin].size();
        if (size > count) break;
        count -= size;
        pop_front();
    }
    written_ = count;
}

void Output::pop_front() {
    head_->frames[head_->begin++] = Frame();
    if (head_->begin < head_->end) return;
    OutputChunk* empty = std::exchange(head_, head_->next);
    pool_.give_back(empty);
    if (head_ == nullptr) tail_ = nullptr;
}

void Output::drop_unsent(bool keep_first) {
    if (head_ == nullptr) return;
    Frame first;
    const std::size_t written = written_;
    if (keep_first || written > 0) first = head_->frames[head_->begin];
    clear();
    if (!first) return;
    push(std::move(first));
    written_ = written;
    bytes_ -= written;
}

void Output::clear() {
    while (head_ != nullptr) pop_front();
    bytes_ = 0;
    written_ = 0;
}

}  // namespace herald
