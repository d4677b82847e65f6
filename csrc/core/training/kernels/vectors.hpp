// Vectors of 8 floats, which the compiler splits where registers are narrower.
#pragma once

#include "core/training/training_kernels.hpp"

#include <cstdint>
#include <cstring>
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace ssbhash::SSBHASH_ISA::training {
namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
constexpr std::size_t kLanes = 8;

Floats all(float value) { return value - Floats{}; }

Floats load(const float *from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

void store(float *to, Floats values) { std::memcpy(to, &values, sizeof values); }

// The larger of x and y; y if one is a NaN. One instruction in place of a comparison and a choice.
Floats larger(Floats x, Floats y) {
#ifdef __AVX__
    return _mm256_max_ps(x, y);
#else
    return x > y ? x : y;
#endif
}

Floats root(Floats x) {
#ifdef __AVX__
    return _mm256_sqrt_ps(x);
#else
    for (std::size_t i = 0; i < kLanes; ++i)
        x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

Floats load(const float *from, std::size_t n_lanes) {
    if (n_lanes == kLanes)
        return load(from);
    Floats x = {};
    std::memcpy(&x, from, n_lanes * sizeof(float));
    return x;
}

Ints load(const std::uint8_t *from, std::size_t n_lanes) {
    std::uint64_t bytes = 0;
    if (n_lanes == kLanes)
        std::memcpy(&bytes, from, sizeof bytes); // of known size: no call
    else
        std::memcpy(&bytes, from, n_lanes);
#ifdef __AVX2__
    return (Ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
#else
    Ints wide;
    for (std::size_t i = 0; i < kLanes; ++i)
        wide[i] = static_cast<std::int32_t>(bytes >> 8 * i & 255);
    return wide;
#endif
}

void store(float *to, Floats values, std::size_t n_lanes) {
    std::memcpy(to, &values, n_lanes * sizeof(float));
}

// exp(x) for x <= 0, to a relative error of about 2^-22; not below exp(-87).
Floats exp_negative(Floats x) {
    x = larger(all(-87.0f), x);                            // so that a NaN stays one
    const Floats shifted = x * 0x1.715476p+0f + 0x1.8p23f; // rounds to an integer
    const Floats k = shifted - 0x1.8p23f;
    const Floats r = x - k * 0x1.62e4p-1f - k * 0x1.7f7d1cp-20f;
    constexpr float kCoefficients[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    Floats series = all(1.0f / 720);
    for (const float coefficient : kCoefficients)
        series = series * r + coefficient;
    const Ints bits = ((Ints)shifted + 127) << 23;
    return series * (Floats)bits;
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
