// Few queries: counts bits row by row, without transposing and without tables.
#pragma once

#include "core/search/kernels/sink.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
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

// Not inlined: the loops below seldom call it, and it would take registers from them.
template <std::size_t kBytes = 0> // 0: any
[[gnu::noinline]] void offer_rows(const Block &block, std::size_t begin, std::size_t end,
                                  std::size_t width, const std::uint8_t *query, Sink &sink) {
    const std::size_t n_bytes = kBytes ? kBytes : width;
    for (std::size_t i = begin; i < end; ++i) {
        const std::int32_t found = distance(row_at(block, i, n_bytes), query, n_bytes);
        const std::int64_t id = id_at(block, i);
        if (is_wanted(sink, found, id) && is_allowed(block, i))
            take(sink, found, id);
    }
}

#ifdef __AVX2__
SSBHASH_INLINE __m256i load(const std::uint8_t *bytes) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
}

SSBHASH_INLINE __m256i load_halves(const std::uint8_t *low, const std::uint8_t *high) {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i *>(high),
                               reinterpret_cast<const __m128i *>(low));
}

// Counts the differing bits in each of 32 bytes of codes and query.
SSBHASH_INLINE __m256i byte_counts(__m256i code, __m256i query) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i x = _mm256_xor_si256(code, query);
    const __m256i low = _mm256_and_si256(x, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
}

SSBHASH_INLINE __m256i sum_words(__m256i bytes) {
    return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
}

SSBHASH_INLINE __m256i fold_words(__m256i a, __m256i b) {
    return _mm256_add_epi8(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Sums the bytes of each of four registers; each sum is in a lane of 64 bits.
SSBHASH_INLINE __m256i fold_four(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i ab = fold_words(a, b), cd = fold_words(c, d);
    return sum_words(_mm256_add_epi8(_mm256_permute2x128_si256(ab, cd, 0x20),
                                     _mm256_permute2x128_si256(ab, cd, 0x31)));
}

// Sums the lanes of 64 bits; every lane has the sum.
SSBHASH_INLINE __m256i sum_lanes(__m256i words) {
    words = _mm256_add_epi64(words, _mm256_permute4x64_epi64(words, 0x4e));
    return _mm256_add_epi64(words, _mm256_shuffle_epi32(words, 0x4e));
}

// Compares a query with kCodes consecutive codes: distances() returns one distance in each lane of
// kLaneBytes, in any order. The constructor prepares registers from the query.
template <std::size_t kBytes>
struct RowStep { // multiples of 32, at most 31 * 32
    static constexpr std::size_t kCodes = 4, kLaneBytes = 8, kSpill = 0;
    __m256i query[kBytes / 32];

    RowStep(const std::uint8_t *bytes, std::size_t) { std::memcpy(query, bytes, sizeof(query)); }
    SSBHASH_INLINE __m256i row(const std::uint8_t *code) const {
        __m256i sum = byte_counts(load(code), query[0]);
        for (std::size_t i = 1; i < kBytes / 32; ++i)
            sum = _mm256_add_epi8(sum, byte_counts(load(code + 32 * i), query[i]));
        return sum;
    }
    SSBHASH_INLINE __m256i distances(const std::uint8_t *rows) const {
        return fold_four(row(rows), row(rows + kBytes), row(rows + 2 * kBytes),
                         row(rows + 3 * kBytes));
    }
};

// Codes of 2, 4, 8 and 16 bytes: a register holds several.
template <std::size_t kBytes>
struct NarrowStep {
    static constexpr std::size_t kCodes = kBytes == 16 ? 4 : 32 / kBytes, kSpill = 0;
    static constexpr std::size_t kLaneBytes = kBytes == 16 ? 8 : kBytes;
    __m256i query;

    NarrowStep(const std::uint8_t *bytes, std::size_t) {
        if constexpr (kBytes == 16) {
            query = load_halves(bytes, bytes);
        } else {
            std::uint8_t repeated[8];
            for (std::size_t i = 0; i < 8; i += kBytes)
                std::memcpy(repeated + i, bytes, kBytes);
            query = _mm256_set1_epi64x(static_cast<long long>(load_bytes(repeated, 8)));
        }
    }
    SSBHASH_INLINE __m256i distances(const std::uint8_t *rows) const {
        const __m256i counts = byte_counts(load(rows), query);
        if constexpr (kBytes == 16)
            return sum_words(fold_words(counts, byte_counts(load(rows + 32), query)));
        if constexpr (kBytes == 8)
            return sum_words(counts);
        const __m256i pairs = _mm256_maddubs_epi16(counts, _mm256_set1_epi8(1));
        return kBytes == 2 ? pairs : _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
};
template <>
struct RowStep<2> : NarrowStep<2> {
    using NarrowStep::NarrowStep;
};
template <>
struct RowStep<4> : NarrowStep<4> {
    using NarrowStep::NarrowStep;
};
template <>
struct RowStep<8> : NarrowStep<8> {
    using NarrowStep::NarrowStep;
};
template <>
struct RowStep<16> : NarrowStep<16> {
    using NarrowStep::NarrowStep;
};

// Codes of any other width are padded by zeros to kPadded bytes, in registers. A load reads up to
// kSpill bytes of the next codes, which are dropped.
template <std::size_t kPadded, std::size_t kAtOnce = 4>
struct PaddedStep { // 8: of 1 to 7 bytes; 16: of 9 to 15; 32: of 17 and more
    static constexpr std::size_t kCodes = kAtOnce, kLaneBytes = 8, kSpill = 32;
    static constexpr std::size_t kMaxWords = kPadded == 32 ? 16 : 1; // 4,096 bits
    std::size_t n_bytes, n_words;
    __m256i query[kMaxWords], last;

    PaddedStep(const std::uint8_t *bytes, std::size_t width)
        : n_bytes(width), n_words((width + 31) / 32) {
        std::uint8_t padded[32 * kMaxWords] = {}, pattern[32];
        for (std::size_t i = 0; i < 32; ++i) { // kPadded 8: a shuffle, that drops where >= 128
            const bool used = i % kPadded < n_bytes - (n_words - 1) * 32;
            const auto from = static_cast<std::uint8_t>(i % 8 + i % 16 / 8 * n_bytes);
            pattern[i] = kPadded == 8 ? (used ? from : 255) : (used ? 255 : 0);
        }
        last = load(pattern);
        for (std::size_t i = 0; i < 32 * n_words; ++i) {
            const std::size_t from = kPadded == 32 ? i : i % kPadded;
            padded[i] = from < n_bytes ? bytes[from] : 0;
        }
        for (std::size_t i = 0; i < n_words; ++i)
            query[i] = load(padded + 32 * i);
    }
    SSBHASH_INLINE __m256i pair(const std::uint8_t *rows) const {
        return byte_counts(_mm256_and_si256(load_halves(rows, rows + n_bytes), last), query[0]);
    }
    SSBHASH_INLINE __m256i row(const std::uint8_t *code) const {
        std::size_t i = 0;
        __m256i sum = _mm256_setzero_si256();
        for (; i + 1 < n_words; ++i)
            sum = _mm256_add_epi8(sum, byte_counts(load(code + 32 * i), query[i]));
        const __m256i end = _mm256_and_si256(load(code + 32 * i), last);
        return _mm256_add_epi8(sum, byte_counts(end, query[i]));
    }
    SSBHASH_INLINE __m256i distances(const std::uint8_t *rows) const {
        if constexpr (kPadded == 8) {
            const __m256i codes = load_halves(rows, rows + 2 * n_bytes);
            return sum_words(byte_counts(_mm256_shuffle_epi8(codes, last), query[0]));
        } else if constexpr (kPadded == 16) {
            return sum_words(fold_words(pair(rows), pair(rows + 2 * n_bytes)));
        } else if constexpr (kAtOnce == 1) {
            return sum_lanes(sum_words(row(rows)));
        }
        return fold_four(row(rows), row(rows + n_bytes), row(rows + 2 * n_bytes),
                         row(rows + 3 * n_bytes));
    }
};

// Whether any lane is below the limit. Lanes of 64 bits are compared as 32 bits; their upper halves
// are empty and must not count.
template <std::size_t kLaneBytes>
SSBHASH_INLINE bool any_below(__m256i distances, std::int32_t limit) {
    __m256i below;
    if constexpr (kLaneBytes == 2)
        below = _mm256_cmpgt_epi16(_mm256_set1_epi16(static_cast<std::int16_t>(limit)), distances);
    else
        below = _mm256_cmpgt_epi32(
            kLaneBytes == 4 ? _mm256_set1_epi32(limit) : _mm256_set1_epi64x(limit), distances);
    return !_mm256_testz_si256(below, below);
}

// Tests the codes of one step at once.
template <typename Step, std::size_t kBytes>
[[gnu::noinline]] void offer_steps(const Step &step, const Block &block, std::size_t begin,
                                   std::size_t end, std::size_t width, const std::uint8_t *query,
                                   Sink &sink) {
    for (std::size_t i = begin; i < end; i += Step::kCodes)
        if (any_below<Step::kLaneBytes>(step.distances(block.rows + i * width), sink.limit))
            offer_rows<kBytes>(block, i, i + Step::kCodes, width, query, sink);
}

// Tests groups of codes at once. Only in a group with a code below the limit each code is tested.
template <typename Step, std::size_t kBytes>
void scan_rows_by(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    const std::size_t width = kBytes ? kBytes : n_bytes;
    constexpr std::size_t steps = kBytes >= 64 ? 4 : 8;
    constexpr std::size_t group = steps * Step::kCodes, kAhead = 4096; // bytes
    const Step step(query, width);
    std::size_t i = 0;
    for (; (i + group) * width + Step::kSpill <= block.n * width; i += group) {
        const std::uint8_t *rows = block.rows + i * width;
        // Prefetch: the work on each code leaves too few loads in flight. Measured from memory
        // (128 MB of 64-bit codes): 19.3 GB/s instead of 15.3.
        if (i * width + kAhead < block.n * width)
            for (std::size_t byte = 0; byte < group * width; byte += 64)
                __builtin_prefetch(rows + byte + kAhead);
        __m256i least = step.distances(rows);
#pragma GCC unroll 8
        for (std::size_t s = 1; s < steps; ++s)
            least = _mm256_min_epi16(least, step.distances(rows + s * Step::kCodes * width));
        if (__builtin_expect(any_below<Step::kLaneBytes>(least, sink.limit), 0))
            offer_steps<Step, kBytes>(step, block, i, i + group, width, query, sink);
    }
    std::size_t end = i; // lists of an index are short, so the rest matters
    while ((end + Step::kCodes) * width + Step::kSpill <= block.n * width)
        end += Step::kCodes;
    offer_steps<Step, kBytes>(step, block, i, end, width, query, sink);
    i = end;
    offer_rows<kBytes>(block, i, block.n, width, query, sink);
}

template <std::size_t kBytes>
void scan_rows_of(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    scan_rows_by<RowStep<kBytes>, kBytes>(block, n_bytes, query, sink);
}

void scan_other_rows(const Block &block, std::size_t n_bytes, const std::uint8_t *query,
                     Sink &sink) {
    if (n_bytes < 8)
        return scan_rows_by<PaddedStep<8>, 0>(block, n_bytes, query, sink);
    if (n_bytes < 16)
        return scan_rows_by<PaddedStep<16>, 0>(block, n_bytes, query, sink);
    if (n_bytes < 128)
        return scan_rows_by<PaddedStep<32>, 0>(block, n_bytes, query, sink);
    if (n_bytes <= 32 * PaddedStep<32>::kMaxWords) // wider codes: four at once are four streams
        return scan_rows_by<PaddedStep<32, 1>, 0>(block, n_bytes, query, sink);
    offer_rows(block, 0, block.n, n_bytes, query, sink);
}
#else
template <std::size_t kBytes>
void scan_rows_of(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    offer_rows(block, 0, block.n, kBytes ? kBytes : n_bytes, query, sink);
}

void scan_other_rows(const Block &block, std::size_t n_bytes, const std::uint8_t *query,
                     Sink &sink) {
    offer_rows(block, 0, block.n, n_bytes, query, sink);
}
#endif

void scan_rows(const Block &block, std::size_t n_bytes, const std::uint8_t *query, Sink &sink) {
    if (block.order) // rows are scattered over memory
        return offer_rows(block, 0, block.n, n_bytes, query, sink);
    switch (n_bytes) {
    case 2:
        return scan_rows_of<2>(block, n_bytes, query, sink);
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
        scan_other_rows(block, n_bytes, query, sink);
    }
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
