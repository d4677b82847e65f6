// The rule that decides a sampled bit, exactly: docs/sampling.md.
//
// Every operation is IEEE double precision, in the order written. Files that include this
// are compiled without fused multiply-adds.
#pragma once

#include "core/sampling/philox.hpp"

#include <bit>
#include <cmath>
#include <cstddef>

namespace ssbhash {

// Which random numbers a bit has.
struct BitAddress {
    std::uint64_t seed;
    std::uint64_t row;
    std::uint32_t bit;
    std::uint32_t sample;
};

// sigmoid(-magnitude) for magnitude >= 0; 0 from 100 on.
SSBHASH_SHARED inline double flip_probability(double magnitude) {
    if (magnitude >= 100.0)
        return 0.0;
    const auto power = static_cast<std::int64_t>(magnitude * 0x1.71547652b82fep+0 + 0.5);
    const auto k = static_cast<double>(power);
    const double r = (k * 0x1.62e42fee00000p-1 - magnitude) + k * 0x1.a39ef35793c76p-33;
    // 1/13!, 1/12!, ... 1/0!
    constexpr double kCoefficients[] = {1.0 / 6227020800,
                                        1.0 / 479001600,
                                        1.0 / 39916800,
                                        1.0 / 3628800,
                                        1.0 / 362880,
                                        1.0 / 40320,
                                        1.0 / 5040,
                                        1.0 / 720,
                                        1.0 / 120,
                                        1.0 / 24,
                                        1.0 / 6,
                                        1.0 / 2,
                                        1.0,
                                        1.0};
    double series = kCoefficients[0];
    for (std::size_t i = 1; i < std::size(kCoefficients); ++i)
        series = series * r + kCoefficients[i];
    const double exponential = series * std::bit_cast<double>((1023 - power) << 52); // 2^-power
    return exponential / (1.0 + exponential);
}

// Whether a random number of 128 bits, uniform in [0, 1), is below `rest`.
SSBHASH_SHARED inline bool tail_below(double rest, bool complement, const BitAddress &at) {
    auto words =
        philox({static_cast<std::uint32_t>(at.row), static_cast<std::uint32_t>(at.row >> 32),
                static_cast<std::uint32_t>(Stream::tail) | at.bit, at.sample},
               at.seed);
    if (complement)
        for (auto &word : words)
            word = ~word;
    const std::uint64_t high = std::uint64_t{words[0]} << 32 | words[1];
    const std::uint64_t low = std::uint64_t{words[2]} << 32 | words[3];
    const double scaled = rest * 0x1p64;
    const auto rest_high = static_cast<std::uint64_t>(scaled);
    const auto rest_low =
        static_cast<std::uint64_t>((scaled - static_cast<double>(rest_high)) * 0x1p64);
    return high < rest_high || (high == rest_high && low < rest_low);
}

// The bit, given the 16 random bits that the prefix block has for it.
SSBHASH_SHARED inline bool exact_bit(double logit, std::int16_t half, const BitAddress &at) {
    const bool is_positive = logit > 0;
    std::int32_t prefix = half + 32768;
    if (is_positive)
        prefix = 65535 - prefix;
    const double scaled = flip_probability(std::fabs(logit)) * 65536.0;
    const auto threshold = static_cast<std::int32_t>(scaled);
    const bool flip = prefix < threshold ||
                      (prefix == threshold && tail_below(scaled - threshold, is_positive, at));
    return flip != is_positive;
}

} // namespace ssbhash
