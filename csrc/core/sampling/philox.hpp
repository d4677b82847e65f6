// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror & Shaw,
// Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011). A block of 128 random bits is a
// function of a counter and a key, so blocks can be made in any order, on any thread.
#pragma once

#include "core/base/device.hpp"

#include <array>
#include <cstdint>

namespace ssbhash {

// What a block is for: the two highest bits of the third counter word.
enum class Stream : std::uint32_t { prefix = 0u << 30, tail = 1u << 30, relaxed = 2u << 30 };

SSBHASH_CONSTANT std::uint32_t kPhiloxMultiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
SSBHASH_CONSTANT std::uint32_t kPhiloxWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};
inline constexpr int kPhiloxRounds = 10;

SSBHASH_SHARED constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c,
                                                             std::uint64_t seed) {
    auto k0 = static_cast<std::uint32_t>(seed);
    auto k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier[0]} * c[0];
        const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier[1]} * c[2];
        c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += kPhiloxWeyl[0];
        k1 += kPhiloxWeyl[1];
    }
    return c;
}

} // namespace ssbhash
