#include "frame.h"

#include <array>
#include <cstring>
#include <new>

#include "utf8.h"

namespace herald {

namespace {

constexpr std::size_t kMaxControlPayload = 125;

// A header as RFC 6455, section 5.2 lays it out: FIN and opcode, then the length in 1, 3 or 9
// bytes, the shortest that fits. Servers do not mask.
struct Header {
    std::array<char, 10> bytes{};
    std::size_t length = 2;

    Header(Opcode opcode, std::size_t payload) {
        bytes[0] = static_cast<char>(0x80 | static_cast<unsigned>(opcode));
        if (payload < 126) {
            bytes[1] = static_cast<char>(payload);
        } else if (payload < 65536) {
            bytes[1] = 126;
            put_length(payload, 2);
        } else {
            bytes[1] = 127;
            put_length(payload, 8);
        }
    }
    void put_length(std::uint64_t payload, std::size_t width) {
        for (std::size_t i = 0; i < width; ++i)
            bytes[length++] = static_cast<char>(payload >> (8 * (width - 1 - i)));
    }
    std::string_view view() const { return {bytes.data(), length}; }
};

}  // namespace

struct Frame::BorrowedBlock : Block {
    std::shared_ptr<const void> owner;
};

Frame Frame::join(std::string_view header, std::string_view first, std::string_view second) {
    const std::size_t size = header.size() + first.size() + second.size();
    void* memory = ::operator new(sizeof(Block) + size);
    auto* to = static_cast<char*>(memory) + sizeof(Block);
    auto* block = new (memory) Block{1, static_cast<std::uint32_t>(header.size()), size, to};
    for (const std::string_view part : {header, first, second}) {
        if (!part.empty()) std::memcpy(to, part.data(), part.size());
        to += part.size();
    }
    return Frame(block);
}

Frame Frame::of(Opcode opcode, std::string_view payload) {
    if (static_cast<unsigned>(opcode) >= 0x8) payload = payload.substr(0, kMaxControlPayload);
    return join(Header(opcode, payload.size()).view(), payload, {});
}

Frame Frame::close(std::uint16_t code, std::string_view reason) {
    if (code == 0) return of(Opcode::kClose, {});
    const std::array<char, 2> status = {static_cast<char>(code >> 8), static_cast<char>(code)};
    reason = cut_utf8(reason, kMaxControlPayload - status.size());
    const Header header(Opcode::kClose, status.size() + reason.size());
    return join(header.view(), {status.data(), status.size()}, reason);
}

Frame Frame::raw(std::string_view head, std::string_view body) {
    return join({}, head, body);
}

Frame Frame::borrowed(std::string_view bytes, std::shared_ptr<const void> owner) {
    return Frame(new BorrowedBlock{{1, 0, bytes.size(), bytes.data()}, std::move(owner)});
}

void Frame::destroy(Block* block) noexcept {
    if (block->bytes == reinterpret_cast<const char*>(block + 1)) {
        ::operator delete(block);
    } else {
        delete static_cast<BorrowedBlock*>(block);
    }
}

}  // namespace herald
