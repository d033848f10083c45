// Client side of a WebSocket as the benchmarks need it: connect, upgrade, one masked text frame
// out, and a frame reader that skips payloads. Trusted peers only; errors end the program.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace bench {

[[noreturn]] inline void fail(const std::string& what) {
    std::fprintf(stderr, "bench client: %s\n", what.c_str());
    std::exit(1);
}

[[noreturn]] inline void fail_errno(const std::string& what) {
    fail(what + ": " + std::strerror(errno));
}

// Writes everything to a blocking socket.
inline void write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) fail_errno("write");
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
}

// A text frame masked with a zero key, which leaves the payload as it is.
inline std::string text_frame(std::string_view payload) {
    if (payload.size() > 65535) fail("frame too long");
    std::string frame = "\x81";
    if (payload.size() < 126) {
        frame += static_cast<char>(0x80 | payload.size());
    } else {
        frame += static_cast<char>(0x80 | 126);
        frame += static_cast<char>(payload.size() >> 8);
        frame += static_cast<char>(payload.size() & 0xff);
    }
    frame.append(4, '\0');
    frame += payload;
    return frame;
}

// Opens a blocking connection to 127.0.0.1:port and upgrades it. Nothing that follows the
// upgrade's answer is consumed.
inline int connect_websocket(int port, const std::string& path) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail_errno("socket");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
        fail_errno("connect");
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    write_all(fd, "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) +
                      "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                      "Sec-WebSocket-Version: 13\r\n\r\n");
    std::string answer;
    while (answer.find("\r\n\r\n") == std::string::npos) {
        char byte;
        const ssize_t n = ::read(fd, &byte, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) fail("connection closed while upgrading: " + answer);
        answer += byte;
        if (answer.size() > 16384) fail("endless answer to the upgrade");
    }
    if (answer.compare(0, 12, "HTTP/1.1 101") != 0) fail("not upgraded: " + answer);
    return fd;
}

// Cuts a byte stream into frames. `on_text(bytes)` is called when a text frame is complete, with
// the length of its payload.
class FrameReader {
  public:
    template <typename OnText>
    void feed(const char* data, std::size_t size, OnText on_text) {
        std::size_t at = 0;
        while (at < size) {
            if (left_ == 0) {
                header_[have_++] = static_cast<unsigned char>(data[at++]);
                if (!header_complete()) continue;
            } else {
                const std::size_t n = left_ < size - at ? left_ : size - at;
                at += n;
                left_ -= n;
            }
            if (left_ > 0) continue;
            have_ = 0;
            if ((header_[0] & 0x0f) == 1) on_text(payload_);
        }
    }

  private:
    bool header_complete() {
        if (have_ < 2) return false;
        const unsigned length = header_[1] & 0x7fu;
        const std::size_t need = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (have_ < need) return false;
        payload_ = length;
        if (need > 2) {
            payload_ = 0;
            for (std::size_t i = 2; i < need; ++i) payload_ = payload_ << 8 | header_[i];
        }
        if ((header_[0] & 0x0f) == 8) fail("the server closed a connection");
        left_ = payload_;
        return true;
    }

    unsigned char header_[10] = {};
    std::size_t have_ = 0;
    std::size_t payload_ = 0;
    std::size_t left_ = 0;
};

}  // namespace bench
