// Transposes the rows of a block into bit planes.
//
// In a plane, code i of the block is bit i / lanes of lane i % lanes. So rows of one lane's width
// are loaded directly. Lanes have 64 bits, or 32 for codes of at most 4 bytes. With four lanes:
//
//     lane 0          lane 1          lane 2          lane 3
//     codes 0 4 8 ..  codes 1 5 9 ..  codes 2 6 10 .. codes 3 7 11 ..    from the lowest bit on
#pragma once

#include "core/search/kernels/word.hpp"

#include <utility>

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

template <typename Lane>
using LaneWord [[gnu::vector_size(SSBHASH_WORD_BYTES), gnu::may_alias]] = Lane;

template <typename Lane>
struct Masks;
template <>
struct Masks<std::uint64_t> {
    static constexpr std::uint64_t low[6] = {0x5555555555555555u, 0x3333333333333333u,
                                             0x0f0f0f0f0f0f0f0fu, 0x00ff00ff00ff00ffu,
                                             0x0000ffff0000ffffu, 0x00000000ffffffffu};
};
template <>
struct Masks<std::uint32_t> {
    static constexpr std::uint32_t low[5] = {0x55555555u, 0x33333333u, 0x0f0f0f0fu, 0x00ff00ffu,
                                             0x0000ffffu};
};

// Swaps the upper bits of a with the lower bits of b, in squares of 2^kStage bits.
template <int kStage, typename Lane>
SSBHASH_INLINE void swap_squares(LaneWord<Lane> &a, LaneWord<Lane> &b) {
    constexpr int shift = 1 << kStage;
    const LaneWord<Lane> mask = LaneWord<Lane>{} + Masks<Lane>::low[kStage];
    const LaneWord<Lane> t = ((a >> shift) ^ b) & mask;
    b ^= t;
    a ^= t << shift;
}

// Does the stages kTop ... kTop - kCount + 1, on 2^kCount vectors that lie `stride` apart.
template <typename Lane, int kTop, int kCount>
SSBHASH_INLINE void stages(LaneWord<Lane> *rows, std::size_t stride) {
    constexpr int n = 1 << kCount;
    LaneWord<Lane> v[n];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
        v[i] = rows[i * stride];
    if constexpr (kCount >= 3) {
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i)
            if (!(i & 4))
                swap_squares<kTop - (kCount - 3), Lane>(v[i], v[i + 4]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
        if (!(i & 2))
            swap_squares<kTop - (kCount - 2), Lane>(v[i], v[i + 2]);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
        if (!(i & 1))
            swap_squares<kTop - (kCount - 1), Lane>(v[i], v[i + 1]);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
        rows[i * stride] = v[i];
}

SSBHASH_INLINE void transpose_lanes(LaneWord<std::uint64_t> *rows) {
    for (int i = 0; i < 8; ++i)
        stages<std::uint64_t, 5, 3>(rows + i, 8);
    for (int i = 0; i < 8; ++i)
        stages<std::uint64_t, 2, 3>(rows + 8 * i, 1);
}

SSBHASH_INLINE void transpose_lanes(LaneWord<std::uint32_t> *rows) {
    for (int i = 0; i < 8; ++i)
        stages<std::uint32_t, 4, 2>(rows + i, 8);
    for (int i = 0; i < 4; ++i)
        stages<std::uint32_t, 2, 3>(rows + 8 * i, 1);
}

// With lanes in runs of 2^kStage: takes the even runs (kUpper = 0) or the odd runs (kUpper = 1) of
// a, each followed by the same run of b.
template <int kStage, int kUpper, std::size_t... kLane>
SSBHASH_INLINE Word interleave(Word a, Word b, std::index_sequence<kLane...>) {
    constexpr std::size_t turn = std::size_t{1} << kStage;
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(
        a, b, ((kLane & ~turn) + kUpper * turn + (kLane & turn ? kLanes : 0))...);
#else // GCC before 12
    return __builtin_shuffle(
        a, b, Word{((kLane & ~turn) + kUpper * turn + (kLane & turn ? kLanes : 0))...});
#endif
}

template <int kStage>
SSBHASH_INLINE void exchange_lanes(Word *rows) {
    if constexpr ((std::size_t{1} << kStage) < kLanes) {
        constexpr std::size_t turn = std::size_t{1} << kStage;
        constexpr std::make_index_sequence<kLanes> lanes{};
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kLanes; ++i)
            if (!(i & turn)) {
                const Word a = rows[i], b = rows[i + turn];
                rows[i] = interleave<kStage, 0>(a, b, lanes);
                rows[i + turn] = interleave<kStage, 1>(a, b, lanes);
            }
        exchange_lanes<kStage + 1>(rows);
    }
}

// Writes the first sizeof(Word) bytes of each row as kLanes columns, one after the other. It works
// on squares of whole words; column by column each load would have 8 bytes only.
SSBHASH_INLINE void gather_columns(const std::uint8_t *rows, std::size_t n_bytes, Word *columns) {
    constexpr std::size_t stride = kBlockCodes / kLanes;
    for (std::size_t i = 0; i < stride; ++i) {
        Word square[kLanes];
#pragma GCC unroll 8
        for (std::size_t j = 0; j < kLanes; ++j)
            std::memcpy(&square[j], rows + (i * kLanes + j) * n_bytes, sizeof(Word));
        exchange_lanes<0>(square);
#pragma GCC unroll 8
        for (std::size_t j = 0; j < kLanes; ++j)
            columns[j * stride + i] = square[j];
    }
}

// Makes the planes of bytes [first, first + sizeof(Lane)) of each row, as far as they exist.
template <typename Lane>
void transpose_column(const std::uint8_t *rows, std::size_t n_bytes, std::size_t first,
                      Word *planes) {
    alignas(SSBHASH_WORD_BYTES) Lane column[kBlockCodes];
    const std::size_t width = n_bytes - first < sizeof(Lane) ? n_bytes - first : sizeof(Lane);
    if (n_bytes == sizeof(Lane))
        std::memcpy(column, rows, sizeof(column));
    else if (width == sizeof(Lane))
        for (std::size_t i = 0; i < kBlockCodes; ++i)
            std::memcpy(&column[i], rows + i * n_bytes + first, sizeof(Lane));
    else
        for (std::size_t i = 0; i < kBlockCodes; ++i)
            column[i] = static_cast<Lane>(load_bytes(rows + i * n_bytes + first, width));
    transpose_lanes(reinterpret_cast<LaneWord<Lane> *>(column));
    std::memcpy(planes, column, 8 * width * sizeof(Word));
}

void transpose(const std::uint8_t *rows, std::size_t n_bytes, void *out) {
    Word *planes = static_cast<Word *>(out);
    if (n_bytes <= 4)
        return transpose_column<std::uint32_t>(rows, n_bytes, 0, planes);
    std::size_t first = 0;
    for (; first + sizeof(Word) <= n_bytes; first += sizeof(Word)) {
        gather_columns(rows + first, n_bytes, planes + 8 * first);
        for (std::size_t j = 0; j < kLanes; ++j) // 64 planes each, in place
            transpose_lanes(
                reinterpret_cast<LaneWord<std::uint64_t> *>(planes + 8 * first + 64 * j));
    }
    for (; first < n_bytes; first += 8)
        transpose_column<std::uint64_t>(rows, n_bytes, first, planes + 8 * first);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
