// Logits to bits: drawn, thresholded or relaxed. A unit is 8 logits, and makes one code byte.
#pragma once

#include "core/sampling/kernels/vectors.hpp"

#include "core/sampling/kernels/formulas.hpp"

namespace ssbhash::SSBHASH_ISA::sampling {
namespace {

// ---- logits of each type, rounded to float

// Checks that logits are finite by their sum. A finite sum has finite terms. Any other sum may
// just have overflowed, so the caller then checks each logit.
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
#else
    return half_to_float(__builtin_convertvector(load<UHalves>(from), Words));
#endif
}

inline Floats load_logits(const double *from) {
    typedef float FourFloats __attribute__((vector_size(16)));
    const auto low = __builtin_convertvector(load<Doubles>(from), FourFloats);
    const auto high = __builtin_convertvector(load<Doubles>(from + 4), FourFloats);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

// Walks over the units, row by row; `gap` logits lie between the rows.
template <typename T>
struct Cursor {
    const T *at;
    std::size_t in_row, per_row;
    std::ptrdiff_t gap;

    explicit Cursor(const Units &units)
        : at(static_cast<const T *>(units.data)), in_row(units.in_row), per_row(units.per_row),
          gap(units.gap) {}

    // Fetches the next page (4 KiB). The hardware prefetches only within a page.
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

inline Floats load_halves(const std::uint8_t *from) {
#if defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load<__m128i>(from)));
#else
    return __builtin_convertvector(__builtin_convertvector(load<Halves>(from), Ints), Floats);
#endif
}

// Returns the code byte. Lanes of `doubt` are negative for bits that 16 random bits do not settle.
template <typename T>
inline unsigned draw_unit(const T *from, const std::uint8_t *random, FiniteCheck &check,
                          Floats &doubt) {
    const Floats values = load_logits(from);
    check.see(values);
    const Floats difference = is_set_if_negative(values, load_halves(random), doubt);
    return signs(difference);
}

// Few units have an unsure bit, so eight units are checked for one together.
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

// ---- relaxed bits: docs/sampling.md specifies each operation; none is fused

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
        log2_odds([&](int i) { return load<Words>(random + 32 * (unit + i)); }, noise);
        each([&](int i) { values[i] = values[i] * logit_scale + noise[i] * noise_scale; });
        sigmoid_of_minus(values, [&](int i, Floats value) { store(to[i], value); });
    }
    return check.passed();
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::sampling
