// Counting bits, without the popcount instruction, which the baseline lacks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ssbhash {

inline std::size_t count_ones(std::uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555u;
    bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
    return ((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
}

} // namespace ssbhash
