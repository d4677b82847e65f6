// Few queries: row by row, counting bits. No transposing, no tables.
#pragma once

#include "core/isa/sink.hpp"

namespace ssbhash::SSBHASH_ISA {
namespace {

template <std::size_t kBytes> // 0: any
void row_distances_of(const std::uint8_t *codes, std::size_t n, std::size_t n_bytes,
                      const std::uint8_t *query, std::uint16_t *out) {
    const std::size_t width = kBytes ? kBytes : n_bytes;
    for (std::size_t i = 0; i < n; ++i)
        out[i] = static_cast<std::uint16_t>(distance(codes + i * width, query, width));
}

void row_distances(const std::uint8_t *codes, std::size_t n, std::size_t n_bytes,
                   const std::uint8_t *query, std::uint16_t *out) {
    switch (n_bytes) {
    case 4:
        return row_distances_of<4>(codes, n, n_bytes, query, out);
    case 8:
        return row_distances_of<8>(codes, n, n_bytes, query, out);
    case 16:
        return row_distances_of<16>(codes, n, n_bytes, query, out);
    case 32:
        return row_distances_of<32>(codes, n, n_bytes, query, out);
    default:
        return row_distances_of<0>(codes, n, n_bytes, query, out);
    }
}

SSBHASH_INLINE void offer_rows(const Block &block, std::size_t begin, std::size_t end,
                               std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    for (std::size_t i = begin; i < end; ++i)
        offer(sink, distance(row_at(block, i, n_bytes), query, n_bytes), id_at(block, i));
}

#ifdef __AVX2__
// Bits in each byte of 32 bytes of a code against the query's.
SSBHASH_INLINE __m256i byte_counts(const std::uint8_t *code, __m256i query) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i x =
        _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(code)), query);
    const __m256i low = _mm256_and_si256(x, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
}

SSBHASH_INLINE __m256i fold_words(__m256i a, __m256i b) {
    return _mm256_add_epi8(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Distances of kCodes consecutive codes, one in the low half of each lane of 32 or
// 64 bits, in some order; kCodes and the bytes read depend on the width.
template <std::size_t kBytes>
struct RowStep;

template <>
struct RowStep<4> {
    static constexpr std::size_t kCodes = 8;
    SSBHASH_INLINE static __m256i distances(const std::uint8_t *rows, const __m256i *query) {
        const __m256i pairs =
            _mm256_maddubs_epi16(byte_counts(rows, query[0]), _mm256_set1_epi8(1));
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
};
template <>
struct RowStep<8> {
    static constexpr std::size_t kCodes = 4;
    SSBHASH_INLINE static __m256i distances(const std::uint8_t *rows, const __m256i *query) {
        return _mm256_sad_epu8(byte_counts(rows, query[0]), _mm256_setzero_si256());
    }
};
template <>
struct RowStep<16> {
    static constexpr std::size_t kCodes = 4;
    SSBHASH_INLINE static __m256i distances(const std::uint8_t *rows, const __m256i *query) {
        const __m256i a = byte_counts(rows, query[0]), b = byte_counts(rows + 32, query[0]);
        return _mm256_sad_epu8(fold_words(a, b), _mm256_setzero_si256());
    }
};
template <std::size_t kBytes>
struct RowStep { // multiples of 32, at most 31 * 32
    static constexpr std::size_t kCodes = 4;
    SSBHASH_INLINE static __m256i row(const std::uint8_t *code, const __m256i *query) {
        __m256i sum = byte_counts(code, query[0]);
        for (std::size_t i = 1; i < kBytes / 32; ++i)
            sum = _mm256_add_epi8(sum, byte_counts(code + 32 * i, query[i]));
        return sum;
    }
    SSBHASH_INLINE static __m256i distances(const std::uint8_t *rows, const __m256i *query) {
        const __m256i a = fold_words(row(rows, query), row(rows + kBytes, query));
        const __m256i b = fold_words(row(rows + 2 * kBytes, query), row(rows + 3 * kBytes, query));
        const __m256i sum = _mm256_add_epi8(_mm256_permute2x128_si256(a, b, 0x20),
                                            _mm256_permute2x128_si256(a, b, 0x31));
        return _mm256_sad_epu8(sum, _mm256_setzero_si256());
    }
};

// Look at groups of codes at once; only a group with a code below the limit is
// gone through one by one.
template <std::size_t kBytes>
void scan_rows_of(const Block &block, std::size_t, const std::uint8_t *query, Sink &sink) {
    using Step = RowStep<kBytes>;
    constexpr std::size_t steps = kBytes >= 64 ? 4 : 8;
    constexpr std::size_t group = steps * Step::kCodes;
    constexpr std::size_t n_words = kBytes > 32 ? kBytes / 32 : 1;
    __m256i words[n_words];
    std::uint8_t repeated[32 * n_words];
    for (std::size_t i = 0; i < sizeof(repeated); ++i)
        repeated[i] = query[i % kBytes];
    std::memcpy(words, repeated, sizeof(repeated));
    std::size_t i = 0;
    for (; i + group <= block.n; i += group) {
        const std::uint8_t *rows = block.rows + i * kBytes;
        // From memory (128 MB of 64-bit codes) 19.3 GB/s instead of 15.3: the work on
        // each code leaves too few loads in flight.
        for (std::size_t byte = 0; byte < group * kBytes; byte += 64)
            __builtin_prefetch(rows + byte + 4096);
        __m256i least = Step::distances(rows, words);
#pragma GCC unroll 8
        for (std::size_t s = 1; s < steps; ++s)
            least =
                _mm256_min_epi16(least, Step::distances(rows + s * Step::kCodes * kBytes, words));
        // lanes of 32 bits: the empty upper halves of 64-bit ones must not count
        const __m256i limit =
            kBytes == 4 ? _mm256_set1_epi32(sink.limit) : _mm256_set1_epi64x(sink.limit);
        const __m256i below = _mm256_cmpgt_epi32(limit, least);
        if (__builtin_expect(!_mm256_testz_si256(below, below), 0))
            offer_rows(block, i, i + group, kBytes, query, sink);
    }
    offer_rows(block, i, block.n, kBytes, query, sink);
}
#else
template <std::size_t kBytes>
void scan_rows_of(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    offer_rows(block, 0, block.n, kBytes ? kBytes : n_bytes, query, sink);
}
#endif

void scan_rows(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    if (block.order) // rows all over memory
        return offer_rows(block, 0, block.n, n_bytes, query, sink);
    switch (n_bytes) {
    case 4:
        return scan_rows_of<4>(block, n_bytes, query, sink);
    case 8:
        return scan_rows_of<8>(block, n_bytes, query, sink);
    case 16:
        return scan_rows_of<16>(block, n_bytes, query, sink);
    case 32:
        return scan_rows_of<32>(block, n_bytes, query, sink);
    case 64:
        return scan_rows_of<64>(block, n_bytes, query, sink);
    case 128:
        return scan_rows_of<128>(block, n_bytes, query, sink);
    default:
        offer_rows(block, 0, block.n, n_bytes, query, sink);
    }
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA
