// Chunks and running digests of payloads.

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "core/chunk.h"
#include "core/digest.h"
#include "core/gzip_member.h"
#include "random.h"

namespace herald {
namespace {

std::string hex(const std::array<std::uint8_t, RunningDigest::kDigestBytes>& digest) {
    std::string text;
    for (const std::uint8_t byte : digest) {
        constexpr char kHex[] = "0123456789abcdef";
        text += kHex[byte >> 4U];
        text += kHex[byte & 15U];
    }
    return text;
}

std::string frame_of(Compression compression, std::string_view content) {
    std::string frame(compress_bound(compression, content.size()), '\0');
    frame.resize(compress(compression, content, frame.data(), frame.size()));
    return frame;
}

class Chunks : public testing::TestWithParam<Compression> {};

INSTANTIATE_TEST_SUITE_P(All, Chunks,
                         testing::Values(Compression::kNone, Compression::kGzip,
                                         Compression::kZstd),
                         [](const auto& chosen) { return compression_name(chosen.param); });

std::vector<std::string> contents(test::Random& random) {
    std::string noise(kMaxChunk, '\0');
    for (char& c : noise) c = static_cast<char>(random.number(-128, 127));
    std::string words;
    while (words.size() < 100'000) words += "word" + std::to_string(random.number(0, 50));
    return {"x", words, noise, noise.substr(0, 1000), std::string(kMaxChunk, '\0')};
}

TEST_P(Chunks, ComeBackAsTheyWere) {
    test::Random random("chunks");
    for (const std::string& content : contents(random)) {
        const std::string frame = frame_of(GetParam(), content);
        ASSERT_FALSE(frame.empty());
        std::string back(content.size(), '?');
        ASSERT_TRUE(decompress(GetParam(), frame, back.data(), back.size()));
        EXPECT_EQ(back, content);
    }
}

TEST_P(Chunks, OfNoiseAreHardlyLongerThanIt) {
    test::Random random("chunks");
    const std::string noise = contents(random)[2];
    EXPECT_LE(frame_of(GetParam(), noise).size(), noise.size() + 100);
}

// Whatever a frame says, no byte is written behind the room for it.
TEST_P(Chunks, OfAnotherLengthAreRefused) {
    const std::string content(kMaxChunk, 'b');
    const std::string frame = frame_of(GetParam(), content);
    for (const std::size_t bytes : {std::size_t{1}, content.size() - 1, content.size() + 1}) {
        std::string room(bytes + 64, '#');
        EXPECT_FALSE(decompress(GetParam(), frame, room.data(), bytes));
        EXPECT_EQ(room.substr(bytes), std::string(64, '#'));
    }
}

TEST_P(Chunks, WithSomethingBehindOrMissingAreRefused) {
    test::Random random("chunks");
    const std::string content = contents(random)[1];
    const std::string frame = frame_of(GetParam(), content);
    std::string back(content.size(), '?');
    EXPECT_FALSE(decompress(GetParam(), frame + "x", back.data(), back.size()));
    EXPECT_FALSE(decompress(GetParam(), frame + frame, back.data(), back.size()));
    EXPECT_FALSE(decompress(GetParam(), std::string_view(frame).substr(0, frame.size() - 1),
                            back.data(), back.size()));
    EXPECT_FALSE(decompress(GetParam(), "", back.data(), back.size()));
}

// Hostile frames: never a byte too many, never a crash.
TEST_P(Chunks, OfRandomDamageStayInside) {
    test::Random random("damaged chunks");
    for (int run = 0; run < 500; ++run) {
        const std::string content = random.text("ab", 1, 5000);
        std::string frame = frame_of(GetParam(), content);
        for (std::int64_t n = random.number(1, 4); n > 0; --n) {
            const auto last = static_cast<std::int64_t>(frame.size()) - 1;
            frame[static_cast<std::size_t>(random.number(0, last))] ^=
                static_cast<char>(random.number(1, 255));
        }
        std::string room(content.size() + 64, '#');
        (void)decompress(GetParam(), frame, room.data(), content.size());
        EXPECT_EQ(room.substr(content.size()), std::string(64, '#'));
    }
}

// By RFC 1952: the head, the data, an empty last block of fixed codes, CRC-32, length.
TEST(GzipChunks, AreOfTheFormThatCanBeJoined) {
    test::Random random("gzip chunks");
    const auto number_at = [](std::string_view bytes) {
        std::uint32_t number = 0;
        for (unsigned i = 0; i < 4; ++i)
            number |= std::uint32_t{static_cast<std::uint8_t>(bytes[i])} << (8U * i);
        return number;
    };
    for (const std::string& content : contents(random)) {
        const std::string frame = frame_of(Compression::kGzip, content);
        ASSERT_GT(frame.size(), kGzipHead.size() + kGzipEnd);
        const std::string_view end = std::string_view(frame).substr(frame.size() - 10);
        EXPECT_EQ(frame.substr(0, 4), std::string("\x1f\x8b\x08\0", 4)) << "no fields in the head";
        EXPECT_EQ(frame.substr(frame.size() - 14, 4), std::string("\0\0\xff\xff", 4)) << "flushed";
        EXPECT_EQ(end.substr(0, 2), std::string("\x03\0", 2));
        const uLong crc = crc32(0, reinterpret_cast<const Bytef*>(content.data()),
                                static_cast<uInt>(content.size()));
        EXPECT_EQ(number_at(end.substr(2)), crc);
        EXPECT_EQ(number_at(end.substr(6)), content.size());

        const auto parts = read_gzip_member(frame);
        ASSERT_TRUE(parts);
        EXPECT_EQ(parts->data, std::string_view(frame).substr(10, frame.size() - 20));
        EXPECT_EQ(parts->crc, crc);
        EXPECT_EQ(parts->bytes, content.size());
    }
}

// The worst for the bound: noise, of lengths where zlib's blocks end.
TEST(GzipChunks, FitTheirBound) {
    test::Random random("gzip bounds");
    const std::string noise = contents(random)[2];
    for (int run = 0; run < 100; ++run) {
        const auto length = static_cast<std::size_t>(
            random.chance(0.5) ? random.number(1, 300) : random.number(16'300, kMaxChunk));
        EXPECT_FALSE(frame_of(Compression::kGzip, noise.substr(0, length)).empty()) << length;
    }
}

TEST(GzipMember, OfAnotherFormIsRefused) {
    const std::string frame = frame_of(Compression::kGzip, "hello");
    ASSERT_TRUE(read_gzip_member(frame));
    for (std::size_t cut = 1; cut <= frame.size(); ++cut) {
        EXPECT_FALSE(read_gzip_member(frame.substr(cut)));
        EXPECT_FALSE(read_gzip_member(frame.substr(0, frame.size() - cut)));
    }
    // Each byte of the head, of the end of the data, and of the last block.
    for (std::size_t at = 0; at < frame.size() - 8; ++at) {
        if (at >= 10 && at < frame.size() - 14) continue;
        std::string other = frame;
        other[at] = static_cast<char>(other[at] ^ 4);
        EXPECT_FALSE(read_gzip_member(other)) << at;
    }
    EXPECT_FALSE(read_gzip_member(std::string(kGzipHead) + "\xff\xff" + std::string(8, '\0')));
}

TEST(Compression, HasNames) {
    EXPECT_EQ(compression_by_name("zstd"), Compression::kZstd);
    EXPECT_EQ(compression_by_name("gzip"), Compression::kGzip);
    EXPECT_EQ(compression_by_name("none"), Compression::kNone);
    EXPECT_EQ(compression_by_name("brotli"), std::nullopt);
    EXPECT_EQ(compression_by_name(""), std::nullopt);
}

// The examples of FIPS 180-4.
TEST(RunningDigest, IsSha256) {
    RunningDigest digest = RunningDigest::begin();
    EXPECT_EQ(hex(digest.digest()),
              "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest.add("abc");
    EXPECT_EQ(hex(digest.digest()),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(RunningDigest, GoesOnFromItsState) {
    test::Random random("digests in parts");
    for (int run = 0; run < 200; ++run) {
        RunningDigest whole = RunningDigest::begin();
        RunningDigest parts = RunningDigest::begin();
        std::string content;
        for (std::int64_t n = random.number(0, 8); n > 0; --n) {
            const std::string part = random.text("abcdefgh", 0, 300);
            const std::string state(parts.state());
            RunningDigest next = RunningDigest::begin();
            ASSERT_TRUE(RunningDigest::resume(state, &next));
            next.add(part);
            parts = next;
            content += part;
        }
        whole.add(content);
        EXPECT_EQ(hex(parts.digest()), hex(whole.digest()));
    }
}

TEST(RunningDigest, TakesNoDamagedState) {
    RunningDigest digest = RunningDigest::begin();
    const std::string state(digest.state());
    EXPECT_FALSE(RunningDigest::resume("", &digest));
    EXPECT_FALSE(RunningDigest::resume(state + "x", &digest));
    EXPECT_FALSE(RunningDigest::resume(std::string(state.size(), '\xFF'), &digest));
}

}  // namespace
}  // namespace herald
