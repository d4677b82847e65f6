// Rows to bit planes, queries to offsets into the carry tables.
//
// Planes of a tile: for each unit the parity of all planes before it, then its 16 planes; at
// last the parity of all. Each plane is kTileRegisters words.
#pragma once

#include "cuda/sink.cuh"

namespace ssbhash::cuda::searching {
namespace {

constexpr int kUnitRows = static_cast<int>(kUnitPlanes) + 1;

__host__ __device__ inline std::int64_t tile_words(std::int64_t n_units) {
    return (n_units * kUnitRows + 1) * kTileRegisters;
}

// Bit j of a[i] becomes bit i of a[j], by halves, quarters ...
__device__ inline void transpose(std::uint32_t (&a)[32]) {
    std::uint32_t mask = 0x0000FFFF;
#pragma unroll
    for (int step = 16; step > 0; step /= 2, mask ^= mask << step) {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int low = (i & (step - 1)) | (i & ~(step - 1)) << 1;
            const std::uint32_t swapped = (a[low] >> step ^ a[low + step]) & mask;
            a[low] ^= swapped << step;
            a[low + step] ^= swapped;
        }
    }
}

constexpr int kPlaneThreads = 128;

// One thread for each 32 codes.
__global__ void __launch_bounds__(kPlaneThreads)
    transpose_rows(DeviceCodes codes, std::int32_t n_units, std::uint32_t *planes) {
    const std::int64_t column = std::int64_t{blockIdx.x} * kPlaneThreads + threadIdx.x;
    const std::int64_t tile = column / kTileRegisters, first = column * 32;
    if (tile * kTileCodes >= codes.n)
        return;
    std::uint32_t *out = planes + tile * tile_words(n_units) + column % kTileRegisters;
    std::uint32_t parity = 0;
    for (std::int32_t word = 0; 2 * word < n_units; ++word) {
        std::uint32_t bits[32];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const bool exists = first + i < codes.n && 4 * word < codes.n_bytes;
            bits[i] = exists ? load_word(codes, codes.rows + (first + i) * codes.n_bytes, word) : 0;
        }
        transpose(bits);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const std::int32_t unit = 2 * word + i / 16;
            if (unit >= n_units)
                break;
            if (i % 16 == 0)
                out[unit * kUnitRows * kTileRegisters] = parity;
            out[(unit * kUnitRows + 1 + i % 16) * kTileRegisters] = bits[i];
            parity ^= bits[i];
        }
    }
    out[n_units * kUnitRows * kTileRegisters] = parity;
}

// What a query needs: the offset of each pick, and its parity.
__global__ void __launch_bounds__(kPlaneThreads)
    set_queries(const std::uint8_t *queries, std::int64_t n_queries, std::int32_t n_bytes,
                std::int32_t n_units, Offset *offsets, std::uint8_t *parities) {
    const std::int64_t query = std::int64_t{blockIdx.x} * kPlaneThreads + threadIdx.x;
    if (query >= n_queries)
        return;
    const std::uint8_t *code = queries + query * n_bytes;
    Offset *out = offsets + query * n_units * std::int64_t{kUnitPicks};
    std::uint32_t parity = 0;
    for (std::int32_t unit = 0; unit < n_units; ++unit) {
        std::uint32_t bits[kUnitPlanes];
        for (int i = 0; i < static_cast<int>(kUnitPlanes); ++i) {
            const std::int32_t byte = 2 * unit + i / 8;
            bits[i] = byte < n_bytes ? code[byte] >> i % 8 & 1 : 0;
        }
        parity = wire(bits, parity,
                      [&](std::size_t t, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
                          out[unit * kUnitPicks + t] =
                              static_cast<Offset>((a | b << 1 | c << 2) * kTableStep);
                      });
    }
    parities[query] = static_cast<std::uint8_t>(parity);
}

} // namespace
} // namespace ssbhash::cuda::searching
