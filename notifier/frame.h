// Frame: bytes that are ready for the wire, made once and shared by every connection they go to.
// A WebSocket frame is its header and payload in one allocation; an HTTP response is a frame
// without header (raw); a piece of a large content stays where it is (borrowed). Immutable after it
// is made. The reference count is a plain integer: frames live on the one loop thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

namespace herald {

enum class Opcode : std::uint8_t {
    kContinuation = 0x0,
    kText = 0x1,
    kBinary = 0x2,
    kClose = 0x8,
    kPing = 0x9,
    kPong = 0xA,
};

class Frame {
  public:
    // No frame; all views are empty.
    Frame() = default;
    Frame(const Frame& other) : block_(other.block_) {
        if (block_ != nullptr) ++block_->references;
    }
    Frame(Frame&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    Frame& operator=(Frame other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~Frame() {
        if (block_ != nullptr && --block_->references == 0) destroy(block_);
    }

    // A whole (unfragmented, unmasked) frame as a server sends it. Control frames: payload of at
    // most 125 bytes; a longer one is cut.
    static Frame of(Opcode opcode, std::string_view payload);
    static Frame text(std::string_view payload) { return of(Opcode::kText, payload); }
    // A close frame; code 0 gives an empty one. The reason is cut to 123 bytes (on a character).
    static Frame close(std::uint16_t code, std::string_view reason);
    // Bytes as they are: head, then body.
    static Frame raw(std::string_view head, std::string_view body = {});
    // Bytes that somebody else holds, without copying them; `owner` keeps them alive.
    static Frame borrowed(std::string_view bytes, std::shared_ptr<const void> owner);

    explicit operator bool() const { return block_ != nullptr; }
    // Everything that goes over the wire.
    std::string_view wire() const {
        if (block_ == nullptr) return {};
        return {block_->bytes, block_->size};
    }
    // The message without the WebSocket header.
    std::string_view payload() const {
        if (block_ == nullptr) return {};
        return wire().substr(block_->header);
    }
    std::size_t size() const { return block_ == nullptr ? 0 : block_->size; }

  private:
    struct Block {
        std::uint32_t references;
        std::uint32_t header;  // bytes before the payload
        std::size_t size;      // header and payload
        const char* bytes;     // behind the block, or the owner's
    };
    struct BorrowedBlock;

    explicit Frame(Block* block) : block_(block) {}
    static Frame join(std::string_view header, std::string_view first, std::string_view second);
    static void destroy(Block* block) noexcept;

    Block* block_ = nullptr;
};

}  // namespace herald
