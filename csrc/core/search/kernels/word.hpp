// A word is a register with one bit for each of as many codes. This file has words and their
// adders.
//
// Included only by isa/*.cpp, which define
//   SSBHASH_ISA          the namespace and name
//   SSBHASH_WORD_BYTES   width of the word
// Intrinsics are used only if GCC's vector extensions give worse code.
//
// SSBHASH_PLAIN_PAIRS (tests) takes the AVX-512 and NEON way of adding elsewhere.
#pragma once

#include "core/search/search_kernels.hpp"

#include <cstring>

#define SSBHASH_INLINE __attribute__((always_inline)) inline
#define SSBHASH_PRAGMA(text) _Pragma(#text)
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(GCC unroll n)

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

typedef std::uint64_t Word __attribute__((vector_size(SSBHASH_WORD_BYTES), may_alias));
constexpr std::size_t kLanes = SSBHASH_WORD_BYTES / 8;
constexpr std::size_t kBlockCodes = SSBHASH_WORD_BYTES * 8;

// kTableStep is the bytes from one plane of a table to the next. The offset of a pick is stored in
// one byte, as pattern * kOffsetStep; times kOffsetScale it counts bytes.
constexpr std::size_t kTableStep = SSBHASH_WORD_BYTES;
constexpr std::size_t kOffsetScale = SSBHASH_WORD_BYTES > 32 ? SSBHASH_WORD_BYTES / 32 : 1;
constexpr std::size_t kOffsetStep = SSBHASH_WORD_BYTES / kOffsetScale;
using Offset = std::uint8_t;

SSBHASH_INLINE Word broadcast(std::uint64_t x) { return Word{} + x; }

SSBHASH_INLINE bool all_ones(Word x) {
#if defined(__AVX512F__) && SSBHASH_WORD_BYTES == 64
    return _mm512_cmpneq_epi64_mask((__m512i)x, _mm512_set1_epi64(-1)) == 0;
#elif defined(__AVX2__) && SSBHASH_WORD_BYTES == 32
    return _mm256_testc_si256((__m256i)x, _mm256_set1_epi64x(-1));
#else
    std::uint64_t all = x[0];
    for (std::size_t lane = 1; lane < kLanes; ++lane)
        all &= x[lane];
    return ~all == 0;
#endif
}

// Two planes x, y of equal weight, the input of the next adder.
//
// If a full adder costs 5 operations, a pair is stored as (x, x ^ y). Then two full adders cost 8
// operations instead of 10: the "modified double full adder" of Demenkov, Kojevnikov, Kulikov and
// Yaroslavtsev (2010). With a three-input instruction (vpternlogq) or a bit select (NEON bsl) the
// plain pair is cheaper.
#if defined(__AVX512F__) || defined(__ARM_NEON) || defined(SSBHASH_PLAIN_PAIRS)
struct Pair {
    Word x, y;
};

SSBHASH_INLINE Pair make_pair(Word x, Word y) { return {x, y}; }

// z + x + y = new z + 2 * result
SSBHASH_INLINE Word add(Word &z, Pair p) {
#if defined(__AVX512F__) && SSBHASH_WORD_BYTES == 64
    // Two operations; GCC 12 by itself uses three.
    const auto x = (__m512i)p.x, y = (__m512i)p.y, old = (__m512i)z;
    z = (Word)_mm512_ternarylogic_epi64(x, y, old, 0x96);    // x ^ y ^ z
    return (Word)_mm512_ternarylogic_epi64(x, y, old, 0xe8); // majority
#else
    const Word u = p.x ^ p.y;
    const Word carry = (u & z) | (~u & p.x); // NEON: one bsl
    z ^= u;
    return carry;
#endif
}

// z + both pairs = new z + 2 * (the pair returned)
SSBHASH_INLINE Pair add(Word &z, Pair p, Pair q) {
    const Word a = add(z, p);
    return {a, add(z, q)};
}
#else
struct Pair {
    Word x, xy;
};

SSBHASH_INLINE Pair make_pair(Word x, Word y) { return {x, x ^ y}; }

SSBHASH_INLINE Word add(Word &z, Pair p) {
    const Word carry = ((p.x ^ z) & p.xy) ^ p.x;
    z ^= p.xy;
    return carry;
}

// With s the sum after p: the carry of q is s ^ w, that of p is s ^ h.
SSBHASH_INLINE Pair add(Word &z, Pair p, Pair q) {
    const Word h = p.xy | (p.x ^ z);
    const Word s = p.xy ^ z;
    const Word w = (q.x ^ s) & ~q.xy;
    z = s ^ q.xy;
    return {s ^ w, h ^ w};
}
#endif

inline std::int32_t count_bits(std::uint64_t x) {
#if defined(__POPCNT__) || !defined(__x86_64__)
    return __builtin_popcountll(x);
#else // without the instruction, the compiler would call a function
    x -= (x >> 1) & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return static_cast<std::int32_t>((x * 0x0101010101010101u) >> 56);
#endif
}

SSBHASH_INLINE std::uint64_t load_bytes(const std::uint8_t *bytes, std::size_t n_bytes) {
    std::uint64_t word = 0; // little endian, as all supported machines
    std::memcpy(&word, bytes, n_bytes);
    return word;
}

inline std::int32_t distance(const std::uint8_t *a, const std::uint8_t *b, std::size_t n_bytes) {
    std::int32_t sum = 0;
    std::size_t i = 0;
    for (; i + 8 <= n_bytes; i += 8)
        sum += count_bits(load_bytes(a + i, 8) ^ load_bytes(b + i, 8));
    for (; i < n_bytes; ++i)
        sum += count_bits(static_cast<std::uint64_t>(a[i] ^ b[i]));
    return sum;
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
