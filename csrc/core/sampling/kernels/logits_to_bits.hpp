// Logits to bits: drawn, thresholded, relaxed.
#pragma once

#include "core/sampling/kernels/vectors.hpp"

namespace ssbhash::SSBHASH_ISA::sampling {
namespace {

// ---- logits of each type, as floats for the kernels whose rounding does not matter

// A sum that is finite has had no term that was not. One that is not finite may
// just have overflowed: the caller looks more closely.
struct FiniteCheck {
    Floats sum{};

    void see(Floats x) { sum = sum + x; }
    bool passed() const {
        const Floats zero_or_nan = sum * 0.0f;
        const Ints is_nan = zero_or_nan != zero_or_nan;
        bool any = false;
        for (int i = 0; i < 8; ++i)
            any |= is_nan[i] != 0;
        return !any;
    }
};

inline Floats load_logits(const float *from) { return load<Floats>(from); }

struct BFloat16 {
    std::uint16_t bits;
};

inline Floats load_logits(const BFloat16 *from) {
    return bits_of<Floats>(Words(__builtin_convertvector(load<UHalves>(from), Words) << 16));
}

struct Float16 {
    std::uint16_t bits;
};

inline Floats load_logits(const Float16 *from) {
#if defined(__F16C__)
    return (Floats)_mm256_cvtph_ps(load<__m128i>(from));
#else // the exponent's bias by a multiplication, which normalises subnormals too
    const Words words = __builtin_convertvector(load<UHalves>(from), Words);
    const Words exponent_and_mantissa = (words & 0x7FFFu) << 13;
    const Floats value = bits_of<Floats>(exponent_and_mantissa) * 0x1p112f;
    const Words special = bits_of<Words>(Ints(exponent_and_mantissa >= (0x7C00u << 13)));
    return bits_of<Floats>(bits_of<Words>(value) | (special & 0x7F800000u) |
                           (words & 0x8000u) << 16);
#endif
}

inline Floats load_logits(const double *from) {
    typedef float FourFloats __attribute__((vector_size(16)));
    const auto low = __builtin_convertvector(load<Doubles>(from), FourFloats);
    const auto high = __builtin_convertvector(load<Doubles>(from + 4), FourFloats);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

// One unit after the other.
template <typename T>
struct Cursor {
    const T *at;
    std::size_t in_row, per_row;
    std::ptrdiff_t gap;

    explicit Cursor(const Units &units)
        : at(static_cast<const T *>(units.data)), in_row(units.in_row), per_row(units.per_row),
          gap(units.gap) {}

    // What comes 4 KiB later: the hardware's own fetching ends with a page.
    void fetch() const { __builtin_prefetch(reinterpret_cast<const char *>(at) + 4096); }

    void next() {
        at += 8;
        if (++in_row == per_row) {
            in_row = 0;
            at += gap;
        }
    }
};

// ---- sampled bits

// sigmoid by a rational function of the logit, compared without a division:
//     2 u - 1 < tanh(x / 2) ~ x P(x^2) / Q(x^2).
// kMargin bounds the error of all of it; docs/sampling.md has the analysis, and
// a test compares with the exact rule.
constexpr float kLimit = 10.0f;
constexpr float kP[3] = {0.499905819f * 32768, 0.0127184109f * 32768, 2.04888921e-5f * 32768};
constexpr float kQ[2] = {0.108632996f, 7.90395611e-4f};
constexpr float kMargin = 8.5e-5f * 32768;

inline Floats polynomial(Floats x, float second, float first, float zeroth) {
    return multiply_add(multiply_add(x, all<Floats>(second), all<Floats>(first)), x,
                        all<Floats>(zeroth));
}

inline Floats load_halves(const std::uint8_t *from) {
#if defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load<__m128i>(from)));
#else
    return __builtin_convertvector(__builtin_convertvector(load<Halves>(from), Ints), Floats);
#endif
}

// Lanes of `doubt` are negative where the bit is unsure; returns the code byte.
template <typename T>
inline unsigned draw_unit(const T *from, const std::uint8_t *random, FiniteCheck &check,
                          Floats &doubt) {
    const Floats values = load_logits(from);
    check.see(values);
    const Floats x = clamped(values, kLimit);
    const Floats square = x * x;
    const Floats p = polynomial(square, kP[2], kP[1], kP[0]) * x;
    const Floats q = polynomial(square, kQ[1], kQ[0], 1.0f);
    const Floats difference = multiply_add(load_halves(random), q, -p);
    doubt = multiply_add(q, all<Floats>(-kMargin), magnitude(difference));
    return signs(difference);
}

// Few units have an unsure bit, so eight are looked at together.
template <typename T>
inline void draw_units(Cursor<T> &logits, const std::uint8_t *random, std::size_t n,
                       FiniteCheck &check, std::uint8_t *codes, std::uint8_t *unsure) {
    Floats doubt, any{};
    Cursor<T> again = logits;
#pragma GCC unroll 2
    for (std::size_t unit = 0; unit < n; ++unit, logits.next()) {
        codes[unit] =
            static_cast<std::uint8_t>(draw_unit(logits.at, random + 16 * unit, check, doubt));
        any = bits_of<Floats>(bits_of<Words>(any) | bits_of<Words>(doubt));
    }
    std::memset(unsure, 0, n);
    if (__builtin_expect(signs(any) != 0, false))
        for (std::size_t unit = 0; unit < n; ++unit, again.next()) {
            draw_unit(again.at, random + 16 * unit, check, doubt);
            unsure[unit] = static_cast<std::uint8_t>(signs(doubt));
        }
}

template <typename T>
bool draw(const Units &logits, const std::uint8_t *random, std::size_t n_units, std::uint8_t *codes,
          std::uint8_t *unsure) {
    Cursor<T> cursor(logits);
    FiniteCheck check;
    std::size_t unit = 0;
    for (; unit + 8 <= n_units; unit += 8)
        draw_units(cursor, random + 16 * unit, 8, check, codes + unit, unsure + unit);
    draw_units(cursor, random + 16 * unit, n_units - unit, check, codes + unit, unsure + unit);
    return check.passed();
}

// ---- thresholded bits

template <typename T>
inline unsigned above(const T *from, const float *thresholds, FiniteCheck &check) {
    const Floats values = load_logits(from);
    check.see(values);
    return signs(bits_of<Floats>(Ints(values > load<Floats>(thresholds))));
}

inline unsigned above(const double *from, const double *thresholds, FiniteCheck &check) {
    check.see(load_logits(from));
    Doubles is_above[2];
    for (int i = 0; i < 2; ++i)
        is_above[i] = bits_of<Doubles>(
            LongInts(load<Doubles>(from + 4 * i) > load<Doubles>(thresholds + 4 * i)));
    return signs(is_above);
}

template <typename T, typename Threshold>
bool threshold(const Units &logits, const void *thresholds, std::size_t n_units,
               std::uint8_t *codes) {
    Cursor<T> cursor(logits);
    const auto *of_row = static_cast<const Threshold *>(thresholds);
    FiniteCheck check;
    for (std::size_t unit = 0; unit < n_units; ++unit, cursor.next()) {
        cursor.fetch();
        codes[unit] =
            static_cast<std::uint8_t>(above(cursor.at, of_row + 8 * cursor.in_row, check));
    }
    return check.passed();
}

// ---- relaxed bits: specified operation by operation, so no fused multiply-add

// Several units side by side: the chains of dependent operations are long, and
// one alone would leave the arithmetic units idle.
constexpr int kAbreast = kRelaxUnits;

template <typename Operation>
inline void each(const Operation &operation) {
#pragma GCC unroll 8
    for (int i = 0; i < kAbreast; ++i)
        operation(i);
}

// log2(1 + f) / f for f in [sqrt(1/2) - 1, sqrt(2) - 1], and 2^r for r in [-1/2, 1/2].
constexpr float kLog2[] = {-0x1.2a791p-3f, 0x1.e525bap-3f, -0x1.001262p-2f, 0x1.2596bap-2f,
                           -0x1.70babp-2f, 0x1.ec7b62p-2f, -0x1.7155bap-1f, 0x1.715472p+0f};
constexpr float kExp2[] = {0x1.5c08c4p-10f, 0x1.3d0c54p-7f, 0x1.c6b6e6p-5f,
                           0x1.ebf918p-3f,  0x1.62e428p-1f, 0x1.000002p+0f};

template <std::size_t n>
inline void horner(const float (&coefficients)[n], const Floats *x, Floats *series) {
    each([&](int i) { series[i] = coefficients[0] * x[i] + coefficients[1]; });
    for (std::size_t k = 2; k < n; ++k)
        each([&](int i) { series[i] = series[i] * x[i] + coefficients[k]; });
}

// log2(u / (1 - u)) for u = (word >> 9 + 1/2) / 2^23.
inline void log2_odds(const std::uint8_t *random, Floats *out) {
    Floats exponent[kAbreast], fraction[kAbreast], series[kAbreast];
    each([&](int i) {
        const Ints words = bits_of<Ints>(Words(load<Words>(random + 32 * i) >> 9));
        const Floats u = __builtin_convertvector(words, Floats) + 0.5f;
        const Ints bits = bits_of<Ints>(Floats(u / (8388608.0f - u)));
        const Ints power = (bits - 0x3F3504F3) >> 23; // leaves a mantissa in [sqrt(1/2), sqrt(2))
        exponent[i] = __builtin_convertvector(power, Floats);
        fraction[i] = bits_of<Floats>(Ints(bits - (power << 23))) - 1.0f;
    });
    horner(kLog2, fraction, series);
    each([&](int i) { out[i] = fraction[i] * series[i] + exponent[i]; });
}

// 1 / (1 + 2^t)
inline void sigmoid_of_minus(const Floats *t, float *const *relaxed) {
    Floats rest[kAbreast], series[kAbreast];
    Ints power[kAbreast];
    each([&](int i) {
        const Floats x = clamped(t[i], 120.0f);
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
        const Floats nearest = (x + 12582912.0f) - 12582912.0f;
        power[i] = __builtin_convertvector(nearest, Ints) << 23;
        rest[i] = x - nearest;
    });
    horner(kExp2, rest, series);
    each([&](int i) {
        const Floats exponential = bits_of<Floats>(Ints(bits_of<Ints>(series[i]) + power[i]));
        store(relaxed[i], Floats(1.0f / (1.0f + exponential)));
    });
}

template <typename T>
bool relax(const Units &logits, const std::uint8_t *random, std::size_t n_units, float logit_scale,
           float noise_scale, float *relaxed, std::ptrdiff_t gap) {
    Cursor<T> cursor(logits);
    FiniteCheck check;
    for (std::size_t unit = 0; unit < n_units; unit += kAbreast) {
        Floats values[kAbreast], noise[kAbreast];
        float *to[kAbreast];
        each([&](int i) {
            values[i] = load_logits(cursor.at);
            check.see(values[i]);
            cursor.next();
            to[i] = relaxed;
            relaxed += cursor.in_row == 0 ? 8 + gap : 8;
        });
        log2_odds(random + 32 * unit, noise);
        each([&](int i) { values[i] = values[i] * logit_scale + noise[i] * noise_scale; });
        sigmoid_of_minus(values, to);
    }
    return check.passed();
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::sampling
