// Vectors of 8 lanes, which the compiler splits where registers are narrower, and operations on
// them.
#pragma once

#include "core/sampling/sampling_kernels.hpp"

#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define SSBHASH_FORMULA inline
#define SSBHASH_PRAGMA(text) _Pragma(#text)
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(GCC unroll n)

namespace ssbhash::SSBHASH_ISA::sampling {
namespace {

constexpr int kAbreast = kRelaxUnits; // formulas.hpp

typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
typedef std::uint32_t Words __attribute__((vector_size(32)));
typedef std::int16_t Halves __attribute__((vector_size(16)));
typedef std::uint16_t UHalves __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(32)));        // half a unit
typedef std::int64_t LongInts __attribute__((vector_size(32))); // half a unit
typedef std::uint64_t Longs __attribute__((vector_size(32)));   // one lane for each block

template <typename To, typename From>
inline To bits_of(const From &from) {
    static_assert(sizeof(To) == sizeof(From));
    return reinterpret_cast<const To &>(from);
}

template <typename Vector>
inline Vector load(const void *from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

template <typename Vector>
inline void store(void *to, Vector vector) {
    std::memcpy(to, &vector, sizeof vector);
}

template <typename Vector, typename Scalar>
inline Vector all(Scalar value) {
    return value - Vector{};
}

template <typename To, typename From>
inline To converted(From from) {
    return __builtin_convertvector(from, To);
}

inline Words ones_if_at_least(Words x, std::uint32_t bound) {
    return bits_of<Words>(Ints(x >= bound));
}

// ---- operations that the compiler has no good code for

// The product of the low 32 bits of each lane.
inline Longs multiply_low(Longs a, std::uint32_t b) {
#if defined(__AVX2__)
    return (Longs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    const __m128i *halves = reinterpret_cast<const __m128i *>(&a);
    const __m128i factor = _mm_set1_epi64x(b);
    const __m128i product[2] = {_mm_mul_epu32(halves[0], factor), _mm_mul_epu32(halves[1], factor)};
    return load<Longs>(product);
#else
    return (a & 0xFFFFFFFFu) * std::uint64_t{b};
#endif
}

// Bit i of the result is the sign bit of lane i.
inline unsigned signs(Floats x) {
#if defined(__AVX2__)
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)x));
#elif defined(__SSE2__)
    const __m128 *halves = reinterpret_cast<const __m128 *>(&x);
    return static_cast<unsigned>(_mm_movemask_ps(halves[0]) | _mm_movemask_ps(halves[1]) << 4);
#else
    unsigned mask = 0;
    const Words words = bits_of<Words>(x);
    for (int i = 0; i < 8; ++i)
        mask |= (words[i] >> 31) << i;
    return mask;
#endif
}

inline unsigned signs(const Doubles (&x)[2]) {
#if defined(__AVX2__)
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)x[0]) |
                                 _mm256_movemask_pd((__m256d)x[1]) << 4);
#else
    unsigned mask = 0;
    for (int i = 0; i < 8; ++i)
        mask |= static_cast<unsigned>(bits_of<Longs>(x[i / 4])[i % 4] >> 63) << i;
    return mask;
#endif
}

inline Floats multiply_add(Floats a, Floats b, Floats c) { // rounding does not matter
#if defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

inline Floats magnitude(Floats x) { return bits_of<Floats>(bits_of<Words>(x) & 0x7FFFFFFFu); }

inline Floats clamped(Floats x, float limit) {
#if defined(__AVX__)
    return (Floats)_mm256_max_ps(_mm256_min_ps((__m256)x, _mm256_set1_ps(limit)),
                                 _mm256_set1_ps(-limit));
#else
    const Floats high = all<Floats>(limit);
    x = x < high ? x : high;
    return x > -high ? x : -high;
#endif
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::sampling
