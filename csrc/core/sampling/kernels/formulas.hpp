// The formulas of sampling, for vectors (vectors.hpp) and for a lane of a CUDA device
// (csrc/cuda/sampling.cu). The including file first defines the types Floats, Ints and Words, the
// operations on them, and kAbreast: how many vectors are worked on side by side.
#pragma once

#include "core/base/device.hpp"

namespace ssbhash::SSBHASH_ISA::sampling {
namespace {

// Converts float16. A multiplication changes the exponent's bias; it also normalises subnormals.
SSBHASH_FORMULA Floats half_to_float(Words half) {
    const Words exponent_and_mantissa = (half & 0x7FFFu) << 13;
    const Floats value = bits_of<Floats>(exponent_and_mantissa) * 0x1p112f;
    const Words special = ones_if_at_least(exponent_and_mantissa, 0x7C00u << 13);
    return bits_of<Floats>(
        Words(bits_of<Words>(value) | (special & 0x7F800000u) | (half & 0x8000u) << 16));
}

// ---- sampled bits

// u < sigmoid(x) by a rational function, without a division:
//     2 u - 1 < tanh(x / 2) ~ x P(x^2) / Q(x^2)     compared as  (2 u - 1) Q < x P.
// kMargin bounds the whole error: docs/sampling.md has the analysis, and a test compares with the
// exact rule.
SSBHASH_CONSTANT float kLimit = 10.0f;
SSBHASH_CONSTANT float kP[3] = {0.499905819f * 32768, 0.0127184109f * 32768,
                                2.04888921e-5f * 32768};
SSBHASH_CONSTANT float kQ[2] = {0.108632996f, 7.90395611e-4f};
SSBHASH_CONSTANT float kMargin = 8.5e-5f * 32768;

SSBHASH_FORMULA Floats polynomial(Floats x, float second, float first, float zeroth) {
    return multiply_add(multiply_add(x, all<Floats>(second), all<Floats>(first)), x,
                        all<Floats>(zeroth));
}

// The bit is 1 in negative lanes. Where `doubt` is negative, the exact rule must decide instead.
// `half` holds 16 random bits, as a number.
SSBHASH_FORMULA Floats is_set_if_negative(Floats logit, Floats half, Floats &doubt) {
    const Floats x = clamped(logit, kLimit);
    const Floats square = x * x;
    const Floats p = polynomial(square, kP[2], kP[1], kP[0]) * x;
    const Floats q = polynomial(square, kQ[1], kQ[0], 1.0f);
    const Floats difference = multiply_add(half, q, -p);
    doubt = multiply_add(q, all<Floats>(-kMargin), magnitude(difference));
    return difference;
}

// ---- relaxed bits: docs/sampling.md specifies each operation; none is fused

// Works on several units side by side. Each is a long chain of dependent operations, which alone
// would leave the arithmetic units idle.
template <typename Operation>
SSBHASH_FORMULA void each(const Operation &operation) {
    SSBHASH_UNROLL(8)
    for (int i = 0; i < kAbreast; ++i)
        operation(i);
}

// log2(1 + f) / f for f in [sqrt(1/2) - 1, sqrt(2) - 1], and 2^r for r in [-1/2, 1/2].
SSBHASH_CONSTANT float kLog2[] = {-0x1.2a791p-3f, 0x1.e525bap-3f, -0x1.001262p-2f, 0x1.2596bap-2f,
                                  -0x1.70babp-2f, 0x1.ec7b62p-2f, -0x1.7155bap-1f, 0x1.715472p+0f};
SSBHASH_CONSTANT float kExp2[] = {0x1.5c08c4p-10f, 0x1.3d0c54p-7f, 0x1.c6b6e6p-5f,
                                  0x1.ebf918p-3f,  0x1.62e428p-1f, 0x1.000002p+0f};

template <std::size_t n>
SSBHASH_FORMULA void horner(const float (&coefficients)[n], const Floats *x, Floats *series) {
    each([&](int i) { series[i] = coefficients[0] * x[i] + coefficients[1]; });
    for (std::size_t k = 2; k < n; ++k)
        each([&](int i) { series[i] = series[i] * x[i] + coefficients[k]; });
}

// log2(u / (1 - u)) for u = (word >> 9 + 1/2) / 2^23.
template <typename RandomWords>
SSBHASH_FORMULA void log2_odds(const RandomWords &random, Floats *out) {
    Floats exponent[kAbreast], fraction[kAbreast], series[kAbreast];
    each([&](int i) {
        const Ints words = bits_of<Ints>(Words(random(i) >> 9));
        const Floats u = converted<Floats>(words) + 0.5f;
        const Ints bits = bits_of<Ints>(Floats(u / (8388608.0f - u)));
        const Ints power = (bits - 0x3F3504F3) >> 23; // leaves a mantissa in [sqrt(1/2), sqrt(2))
        exponent[i] = converted<Floats>(power);
        fraction[i] = bits_of<Floats>(Ints(bits - (power << 23))) - 1.0f;
    });
    horner(kLog2, fraction, series);
    each([&](int i) { out[i] = fraction[i] * series[i] + exponent[i]; });
}

// 1 / (1 + 2^t)
template <typename Store>
SSBHASH_FORMULA void sigmoid_of_minus(const Floats *t, const Store &store_relaxed) {
    Floats rest[kAbreast], series[kAbreast];
    Ints power[kAbreast];
    each([&](int i) {
        const Floats x = clamped(t[i], 120.0f);
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
        const Floats nearest = (x + 12582912.0f) - 12582912.0f;
        power[i] = converted<Ints>(nearest) << 23;
        rest[i] = x - nearest;
    });
    horner(kExp2, rest, series);
    each([&](int i) {
        const Floats exponential = bits_of<Floats>(Ints(bits_of<Ints>(series[i]) + power[i]));
        store_relaxed(i, Floats(1.0f / (1.0f + exponential)));
    });
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::sampling
