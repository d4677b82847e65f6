// Products whose left side has many zeros.
#pragma once

#include "core/training/kernels/softmax.hpp"

namespace ssbhash::SSBHASH_ISA::training {
namespace {

// Of each byte the places of its set bits, in order, one to a byte.
struct BitPlaces {
    std::uint64_t of[256] = {};

    constexpr BitPlaces() {
        for (unsigned byte = 0; byte < 256; ++byte)
            for (unsigned bit = 0, shift = 0; bit < 8; ++bit)
                if (byte >> bit & 1) {
                    of[byte] |= std::uint64_t{bit} << shift;
                    shift += 8;
                }
    }
};

std::uint32_t list_nonzeros(const float *from, std::size_t n, float *values, std::uint8_t *places) {
    std::uint32_t count = 0;
#ifdef __AVX2__
    static constexpr BitPlaces kPlaces;
    for (std::size_t i = 0; i < n; i += kLanes) {
        const Floats x = load(from + i, n - i < kLanes ? n - i : kLanes);
        // Unordered: a NaN is listed too.
        const int differ = _mm256_movemask_ps(_mm256_cmp_ps(x, Floats{}, _CMP_NEQ_UQ));
        const std::uint64_t within = kPlaces.of[differ], at = within + i * 0x0101010101010101u;
        const __m256i order =
            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(within)));
        store(values + count, _mm256_permutevar8x32_ps(x, order));
        std::memcpy(places + count, &at, sizeof at);
        count += static_cast<std::uint32_t>(__builtin_popcount(static_cast<unsigned>(differ)));
    }
#else
    for (std::size_t i = 0; i < n; ++i) {
        values[count] = from[i];
        places[count] = static_cast<std::uint8_t>(i);
        count += from[i] != 0; // no branch: half of them are not
    }
#endif
    return count;
}

// One row of the result after another, Vectors wide.
template <std::size_t Vectors>
void add_sparse_rows(const SparseFactors &left, const float *rows, const Sums &to) {
    for (std::size_t r = 0; r < to.n; ++r) {
        float *out = to.data + r * to.row;
        Floats sums[Vectors] = {};
        if (!to.fresh)
#pragma GCC unroll 12
            for (std::size_t v = 0; v < Vectors; ++v)
                sums[v] = load(out + v * kLanes);
        const float *values = left.values + r * kSparseDepth;
        const std::uint8_t *places = left.rows + r * kSparseDepth;
        for (std::size_t i = 0; i < left.counts[r]; ++i) {
            const float *row = rows + places[i] * Vectors * kLanes;
            const Floats value = all(values[i]);
#pragma GCC unroll 12
            for (std::size_t v = 0; v < Vectors; ++v)
                sums[v] += value * load(row + v * kLanes);
        }
#pragma GCC unroll 12
        for (std::size_t v = 0; v < Vectors; ++v)
            store(out + v * kLanes, sums[v]);
    }
}

void add_sparse(const SparseFactors &left, const float *rows, std::size_t width, const Sums &to) {
    static_assert(kSparseColumns == 8 * kLanes);
    constexpr decltype(&add_sparse_rows<1>) kByVectors[] = {
        add_sparse_rows<1>, add_sparse_rows<2>, add_sparse_rows<3>, add_sparse_rows<4>,
        add_sparse_rows<5>, add_sparse_rows<6>, add_sparse_rows<7>, add_sparse_rows<8>};
    kByVectors[width / kLanes - 1](left, rows, to);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
