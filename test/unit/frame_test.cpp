#include "frame.h"

#include <gtest/gtest.h>

#include <string>

namespace herald {
namespace {

std::string header_of(const Frame& frame) {
    return std::string(frame.wire().substr(0, frame.size() - frame.payload().size()));
}

TEST(Frame, HeaderOfEachLengthClass) {
    const auto text = [](std::size_t length) { return Frame::text(std::string(length, 'x')); };
    EXPECT_EQ(header_of(text(0)), std::string("\x81\x00", 2));
    EXPECT_EQ(header_of(text(1)), std::string("\x81\x01", 2));
    EXPECT_EQ(header_of(text(125)), std::string("\x81\x7D", 2));
    EXPECT_EQ(header_of(text(126)), std::string("\x81\x7E\x00\x7E", 4));
    EXPECT_EQ(header_of(text(65535)), std::string("\x81\x7E\xFF\xFF", 4));
    EXPECT_EQ(header_of(text(65536)), std::string("\x81\x7F\0\0\0\0\0\x01\0\0", 10));
    EXPECT_EQ(header_of(text(1 << 20)), std::string("\x81\x7F\0\0\0\0\0\x10\0\0", 10));
}

TEST(Frame, CarriesItsPayload) {
    const std::string payload = std::string("a\0b", 3).append(70000, 'z');
    const Frame frame = Frame::of(Opcode::kBinary, payload);
    EXPECT_EQ(frame.payload(), payload);
    EXPECT_EQ(frame.size(), payload.size() + 10);
    EXPECT_EQ(frame.wire()[0], '\x82');
}

TEST(Frame, ControlPayloadIsCutTo125) {
    EXPECT_EQ(Frame::of(Opcode::kPong, std::string(300, 'p')).payload().size(), 125U);
    EXPECT_EQ(Frame::of(Opcode::kPong, "hi").wire(), std::string_view("\x8A\x02hi"));
}

TEST(Frame, CloseCarriesCodeAndReason) {
    EXPECT_EQ(Frame::close(4009, "slow").wire(), std::string_view("\x88\x06\x0F\xA9slow"));
    EXPECT_EQ(Frame::close(0, "ignored").wire(), std::string_view("\x88\x00", 2));
}

TEST(Frame, CloseReasonIsCutOnACharacter) {
    std::string reason;
    while (reason.size() < 200) reason += "€";  // three bytes each: 123 is the end of one
    EXPECT_EQ(Frame::close(1000, reason).payload().size(), 125U);
    EXPECT_EQ(Frame::close(1000, "x" + reason).payload().size(), 2 + 1 + 120U);
}

TEST(Frame, RawHasNoHeader) {
    const Frame frame = Frame::raw("head", "body");
    EXPECT_EQ(frame.wire(), "headbody");
    EXPECT_EQ(frame.payload(), "headbody");
}

TEST(Frame, CopiesShareTheBytes) {
    Frame a = Frame::text("shared");
    const char* bytes = a.wire().data();
    Frame b = a;
    const Frame c = std::move(a);
    EXPECT_EQ(b.wire().data(), bytes);
    EXPECT_EQ(c.wire().data(), bytes);
    b = Frame();
    EXPECT_FALSE(b);
    EXPECT_EQ(b.size(), 0U);
    EXPECT_EQ(c.payload(), "shared");
}

}  // namespace
}  // namespace herald
