// The interface of libcrypto that has the state as a plain struct; the newer one hides it.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "digest.h"

#include <openssl/sha.h>

#include <cstring>

namespace herald {

namespace {

static_assert(sizeof(SHA256_CTX) == RunningDigest::kStateBytes);

template <typename State>
SHA256_CTX context_of(const State& state) {
    SHA256_CTX context;
    std::memcpy(&context, state.data(), sizeof context);
    return context;
}

}  // namespace

RunningDigest RunningDigest::begin() {
    SHA256_CTX context{};
    (void)SHA256_Init(&context);
    RunningDigest digest;
    std::memcpy(digest.state_.data(), &context, sizeof context);
    return digest;
}

bool RunningDigest::resume(std::string_view state, RunningDigest* digest) {
    if (state.size() != kStateBytes) return false;
    const SHA256_CTX context = context_of(state);
    if (context.num >= SHA256_CBLOCK || context.md_len != SHA256_DIGEST_LENGTH) return false;
    std::memcpy(digest->state_.data(), state.data(), kStateBytes);
    return true;
}

void RunningDigest::add(std::string_view part) {
    SHA256_CTX context = context_of(state_);
    (void)SHA256_Update(&context, part.data(), part.size());
    std::memcpy(state_.data(), &context, sizeof context);
}

std::array<std::uint8_t, RunningDigest::kDigestBytes> RunningDigest::digest() const {
    SHA256_CTX context = context_of(state_);
    std::array<std::uint8_t, kDigestBytes> digest{};
    (void)SHA256_Final(digest.data(), &context);
    return digest;
}

std::string_view RunningDigest::state() const {
    return {reinterpret_cast<const char*>(state_.data()), state_.size()};
}

}  // namespace herald
