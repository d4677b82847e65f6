// Many queries, by the matrix units: one instruction compares 16 codes with 8 queries.
//
// The units count the bits that are set in both of two rows of 128, and add the count to a number
// of 32 bits. A row is a code beside its complement; a query's has the complement first. Bits that
// both have are then those where code and query differ. Sums begin at minus the limit, so a
// code that is wanted has a negative one.
#pragma once

#include "cuda/sink.cuh"

namespace ssbhash::cuda::searching {
namespace {

constexpr int kMostMatrixWarps = 8; // of a block; all look at the same codes
constexpr int kMatrixQueries = 8;   // columns of one instruction
constexpr int kMatrixRefreshSteps = 32;

struct alignas(16) Sums {
    std::int32_t of[4];
};

// Queries of a warp, which stay in its registers: as many as those allow.
template <int kWords>
struct MatrixPlan {
    static constexpr int kPieces = kWords / 2;          // of 64 bits
    static constexpr int kColumns = kWords < 8 ? 8 : 4; // times kMatrixQueries
    static constexpr int kWarpQueries = kMatrixQueries * kColumns;
    static constexpr int kWarpStarts = kWarpQueries / 2; // pairs of columns
    static constexpr int kWarpBytes = kWarpStarts * int{sizeof(Sums)} + 2 * 4 * kWarpQueries;
};

// mma.m16n8k128: adds to sums[row, column] the bits set both in that row of the codes and that
// column of the queries. A lane holds 32 bits of rows lane / 4 and lane / 4 + 8, and of column
// lane / 4; and the sums of these rows in columns 2 * (lane % 4) and the next.
__device__ inline Sums add_shared_bits(const Sums &sums, std::uint32_t low_row,
                                       std::uint32_t high_row, std::uint32_t query) {
#if defined(__CUDA_EMULATOR__)
    Sums result = sums;
    emulator::add_shared_bits(result.of, low_row, high_row, query);
    return result;
#elif __CUDA_ARCH__ >= 800 && __CUDA_ARCH__ <= 900 // later ones do the same in 4 steps of bytes
    Sums result;
    asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=r"(result.of[0]), "=r"(result.of[1]), "=r"(result.of[2]), "=r"(result.of[3])
        : "r"(low_row), "r"(high_row), "r"(query), "r"(sums.of[0]), "r"(sums.of[1]),
          "r"(sums.of[2]), "r"(sums.of[3]));
    return result;
#else
    __trap(); // has_matrix_kernel
    return sums;
#endif
}

// Bits 0, 4, 8 ... 28 of a word as a byte.
__device__ inline std::uint32_t every_fourth_bit(std::uint32_t word) {
    word &= 0x11111111;
    word |= word >> 3;
    word &= 0x03030303;
    word |= word >> 6;
    word &= 0x000F000F;
    return (word | word >> 12) & 0xFF;
}

// A query with codes below its limit: rare, so kept out of the loop.
__device__ __noinline__ inline void offer_codes(const Search &search, std::int64_t query,
                                                std::uint32_t hits, std::int64_t first,
                                                std::int32_t *limit) {
    Sink<32> sink(search, query, blockIdx.x, limit);
    sink.offer(hits, first);
    sink.close();
}

template <int kWords>
__global__ void __launch_bounds__(32 * kMostMatrixWarps, 2)
    scan_by_products(const __grid_constant__ Search search) {
    using P = MatrixPlan<kWords>;
    const Group<32> group;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int row = static_cast<int>(group.lane) / 4, part = static_cast<int>(group.lane) % 4;
    const int n_warps = static_cast<int>(blockDim.x) / 32;
    const std::int64_t first_query = (std::int64_t{blockIdx.y} * n_warps + warp) * P::kWarpQueries;
    const std::int64_t left = search.n_queries - first_query;
    const int n_slots = static_cast<int>(left < 0                 ? 0
                                         : left < P::kWarpQueries ? left
                                                                  : P::kWarpQueries);
    // For each query of the warp: what its sums begin with, in the order of lanes, its limit, and
    // the codes that are nearer.
    auto *starts = reinterpret_cast<Sums *>(shared_memory() + warp * P::kWarpBytes);
    auto *limits = reinterpret_cast<std::int32_t *>(starts + P::kWarpStarts);
    auto *hits = reinterpret_cast<std::uint32_t *>(limits + P::kWarpQueries);
    if (n_slots == 0)
        return;

    // The first half of a row of 128 bits is the code and the query's complement.
    const std::uint32_t flip_code = part < 2 ? 0 : ~0u, flip_query = ~flip_code;
    const DeviceCodes as_codes{search.queries, search.n_queries, search.codes.n_bytes};
    std::uint32_t queries[P::kColumns][P::kPieces];
#pragma unroll
    for (int column = 0; column < P::kColumns; ++column) {
        const int slot = kMatrixQueries * column + row;
        const std::uint8_t *query =
            search.queries + (first_query + (slot < n_slots ? slot : 0)) * search.codes.n_bytes;
#pragma unroll
        for (int piece = 0; piece < P::kPieces; ++piece)
            queries[column][piece] = load_word(as_codes, query, 2 * piece + part % 2) ^ flip_query;
    }
    for (int slot = static_cast<int>(group.lane); slot < P::kWarpQueries; slot += 32)
        limits[slot] = slot < n_slots ? INT32_MAX : 0; // 0: nothing is nearer
    Sums own_starts[P::kColumns];
    const auto set_starts = [&] {
        group.sync(); // limits are there
        for (int i = static_cast<int>(group.lane); i < P::kWarpStarts; i += 32) {
            const std::int32_t even = -limits[2 * i], odd = -limits[2 * i + 1];
            starts[i] = {even, odd, even, odd};
        }
        group.sync(); // starts are there
#pragma unroll
        for (int column = 0; column < P::kColumns; ++column)
            own_starts[column] = starts[4 * column + part];
    };

    const std::int64_t n_steps = (search.codes.n + 31) / 32;
    const std::int64_t last_step = n_steps * (blockIdx.x + 1) / search.n_slices;
    std::int64_t step = n_steps * blockIdx.x / search.n_slices;
    const auto *codes =
        reinterpret_cast<const std::uint32_t *>(search.codes.rows) + row * kWords + part % 2;
    while (step < last_step) {
        for (int slot = static_cast<int>(group.lane); slot < n_slots; slot += 32) {
            const std::int32_t limit = __ldcg(search.limits + first_query + slot);
            limits[slot] = limit < limits[slot] ? limit : limits[slot];
        }
        set_starts();
        const std::int64_t refresh = step + kMatrixRefreshSteps;
        const std::int64_t end = refresh < last_step ? refresh : last_step;
        for (; step < end; ++step) {
            // The last step looks at 32 codes too, some for the second time.
            const std::int64_t last_first = search.codes.n - 32;
            const std::int64_t first = 32 * step < last_first ? 32 * step : last_first;
            std::uint32_t rows[4][P::kPieces]; // of the codes, every eighth
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int piece = 0; piece < P::kPieces; ++piece)
                    rows[i][piece] = codes[(first + 8 * i) * kWords + 2 * piece] ^ flip_code;
            const auto sums_of = [&](int column, int half) {
                Sums sums = own_starts[column];
#pragma unroll
                for (int piece = 0; piece < P::kPieces; ++piece)
                    sums = add_shared_bits(sums, rows[2 * half][piece], rows[2 * half + 1][piece],
                                           queries[column][piece]);
                return sums;
            };
            std::int32_t any = 0;
#pragma unroll
            for (int column = 0; column < P::kColumns; ++column)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const Sums sums = sums_of(column, half);
                    any |= sums.of[0] | sums.of[1];
                    any |= sums.of[2] | sums.of[3];
                }
            if (!__any_sync(~0u, any < 0))
                continue;

#pragma unroll
            for (int column = 0; column < P::kColumns; ++column) {
                std::uint32_t nearer[2] = {0, 0}; // codes, for the even and the odd columns
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const Sums sums = sums_of(column, half);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const unsigned below = group.ballot(sums.of[i] < 0);
                        nearer[i % 2] |= every_fourth_bit(below >> group.lane / 2 % 4)
                                         << (16 * half + 8 * (i / 2));
                    }
                }
                if (group.lane < kMatrixQueries)
                    hits[kMatrixQueries * column + static_cast<int>(group.lane)] =
                        group.lane % 2 == 0 ? nearer[0] : nearer[1];
            }
            group.sync(); // hits are there
            const std::uint32_t allowed = search.allowed ? search.allowed[step] : ~0u;
            for (int slot = 0; slot < n_slots; ++slot) {
                const std::uint32_t of_step = hits[slot] >> (32 * step - first) & allowed;
                if (of_step != 0)
                    offer_codes(search, first_query + slot, of_step, 32 * step, limits + slot);
            }
            set_starts();
        }
    }
}

} // namespace
} // namespace ssbhash::cuda::searching
