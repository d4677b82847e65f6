// Many queries against a tile of codes, through its carry table in shared memory.
#pragma once

#include "cuda/planes.cuh"

namespace ssbhash::cuda::searching {
namespace {

// Codes of at most kUnits units have one table for all queries. Wider ones (kSegmented) have
// one for each kUnits units, built anew for each round of queries, whose counters stay in
// registers. kHigh: counter.hpp.
template <int kUnitsOfTable, int kHighBits, bool kIsSegmented>
struct Plan {
    static constexpr int kUnits = kUnitsOfTable, kHigh = kHighBits;
    static constexpr bool kSegmented = kIsSegmented;
    static constexpr int kThreads = kSegmented ? 512 : 256;
    static constexpr int kBlocks = kSegmented ? 1 : 2; // of a multiprocessor: up to 128 registers
    static constexpr int kGroups = kThreads / kTileLanes;               // queries of a round
    static constexpr int kQueries = kSegmented ? kGroups : 8 * kGroups; // of a block
};

// Where things lie in a block's shared memory. Queries of neighbouring groups are read at once:
// 16 bytes more a query put them into different banks.
template <typename P>
struct SharedLayout {
    static constexpr int table_bytes = P::kUnits * static_cast<int>(kUnitTable * kTableStep);
    static constexpr int ends_bytes = 4 * static_cast<int>(kTableStep);
    int n_picks;

    __host__ __device__ int query_bytes() const { return n_picks * int{sizeof(Offset)} + 16; }
    __host__ __device__ int bytes() const {
        return table_bytes + ends_bytes + P::kQueries * (query_bytes() + 2 * 4 + 1);
    }
    __device__ std::uint8_t *ends() const { return shared_memory() + table_bytes; }
    __device__ Offset *offsets(int slot) const {
        return reinterpret_cast<Offset *>(ends() + ends_bytes + slot * query_bytes());
    }
    __device__ std::int32_t *limits() const {
        return reinterpret_cast<std::int32_t *>(offsets(P::kQueries));
    }
    __device__ std::uint32_t *starts() const {
        return reinterpret_cast<std::uint32_t *>(limits() + P::kQueries);
    }
    __device__ std::uint8_t *parities() const {
        return reinterpret_cast<std::uint8_t *>(starts() + P::kQueries);
    }
};

// A counter's start in one word: its value, which plane it begins with, and whether the
// limit is so large that every code is wanted.
constexpr int kEndShift = 16;
constexpr std::uint32_t kEverything = 1u << 31;

template <int kHigh>
__device__ std::uint32_t packed_start(std::int32_t limit, std::uint32_t query_parity) {
    constexpr int bits = 4 + kHigh;
    if (limit > 2 << bits)
        return kEverything;
    const CounterStart start =
        counter_start(bits, static_cast<std::size_t>(limit < 1 ? 1 : limit), query_parity);
    return static_cast<std::uint32_t>(start.value) | static_cast<std::uint32_t>(start.end)
                                                         << kEndShift;
}

template <int kHigh>
__device__ Counter<kHigh> start_counter(std::uint32_t start, const std::uint8_t *ends) {
    const auto bit = [&](int i) { return broadcast(0u - (start >> i & 1)); };
    Counter<kHigh> counter;
    counter.low[0] = *reinterpret_cast<const Word *>(ends + (start >> kEndShift & 3) * kTableStep);
    for (int i = 1; i < 4; ++i)
        counter.low[i] = bit(i);
    for (int i = 0; i < kHigh; ++i)
        counter.high[i] = bit(4 + i);
    counter.over = broadcast(0);
    return counter;
}

// The codes of a tile that are to be searched.
__device__ inline Word allowed_codes(const Search &search, std::int64_t tile, unsigned lane) {
    return each_part([&](int i) {
        const std::int64_t word = tile * kTileRegisters + lane * kLaneRegisters + i;
        const std::int64_t left = search.codes.n - 32 * word;
        const std::uint32_t exist = left >= 32 ? ~0u : left <= 0 ? 0u : (1u << left) - 1;
        return search.allowed && exist ? exist & search.allowed[word] : exist;
    });
}

// All threads of the block build the table of some units of a tile.
template <typename P>
__device__ void build_table(const std::uint32_t *planes) {
    constexpr int n = P::kUnits * kTileRegisters;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += P::kThreads) {
        const int unit = i / kTileRegisters, column = i % kTileRegisters;
        const std::uint32_t *in = planes + unit * kUnitRows * kTileRegisters + column;
        auto *out = reinterpret_cast<std::uint32_t *>(shared_memory()) +
                    unit * static_cast<int>(kUnitTable) * kTileRegisters + column;
        std::uint32_t bits[kUnitPlanes];
#pragma unroll
        for (int plane = 0; plane < static_cast<int>(kUnitPlanes); ++plane)
            bits[plane] = in[(1 + plane) * kTileRegisters];
        wire(bits, in[0], [&](std::size_t t, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
            std::uint32_t planes_of_triple[8];
            carries(a, b, c, planes_of_triple);
#pragma unroll
            for (int p = 0; p < 8; ++p)
                out[(8 * static_cast<int>(t) + p) * kTileRegisters] = planes_of_triple[p];
        });
    }
}

__device__ inline void set_ends(const std::uint32_t *parity, std::uint8_t *ends) {
    if (threadIdx.x < kTileRegisters) {
        auto *out = reinterpret_cast<std::uint32_t *>(ends) + threadIdx.x;
        const std::uint32_t odd = parity[threadIdx.x];
        out[0] = 0;
        out[kTileRegisters] = ~0u;
        out[2 * kTileRegisters] = odd;
        out[3 * kTileRegisters] = ~odd;
    }
}

// A warp with a code below a limit: rare, so kept out of the loop.
template <int kHigh>
__device__ __noinline__ void offer_hits(const Search &search, std::int64_t query, bool exists,
                                        std::int64_t first, Word hits, std::int32_t *limit,
                                        std::uint32_t *start, std::uint32_t parity) {
    const Group<kTileLanes> group;
    const bool any = (hits.part[0] | hits.part[1] | hits.part[2] | hits.part[3]) != 0;
    if (group.ballot(exists && any) == 0 || *limit < 1)
        return;
    Sink<kTileLanes> sink(search, query, blockIdx.x, limit);
    for (int lane = 0; lane < kTileLanes; ++lane)
        for (int i = 0; i < kLaneRegisters; ++i) {
            const std::uint32_t bits = group.from(lane, hits.part[i]);
            if (bits != 0)
                sink.offer(bits, first + 32 * (lane * kLaneRegisters + i));
        }
    sink.close();
    if (group.lane == 0)
        *start = packed_start<kHigh>(*limit, parity);
}

template <typename P>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    scan_planes(const __grid_constant__ Search search, std::int32_t n_units, const Offset *offsets,
                const std::uint8_t *parities) {
    constexpr int kUnits = P::kUnits, kHigh = P::kHigh;
    const SharedLayout<P> shared{n_units * static_cast<int>(kUnitPicks)};
    const Group<kTileLanes> group;
    const int group_number = static_cast<int>(threadIdx.x) / kTileLanes;
    const std::int64_t first_query = std::int64_t{blockIdx.y} * P::kQueries;
    const std::int64_t left = search.n_queries - first_query;
    const int n_slots = static_cast<int>(left < P::kQueries ? left : P::kQueries);

    for (int i = static_cast<int>(threadIdx.x); i < n_slots * shared.n_picks; i += P::kThreads)
        shared.offsets(i / shared.n_picks)[i % shared.n_picks] =
            offsets[first_query * shared.n_picks + i];
    for (int slot = static_cast<int>(threadIdx.x); slot < n_slots; slot += P::kThreads) {
        shared.limits()[slot] = INT32_MAX;
        shared.parities()[slot] = parities[first_query + slot];
    }

    const std::int64_t n_tiles = (search.codes.n + kTileCodes - 1) / kTileCodes;
    const std::int64_t last_tile = n_tiles * (blockIdx.x + 1) / search.n_slices;
    for (std::int64_t tile = n_tiles * blockIdx.x / search.n_slices; tile < last_tile; ++tile) {
        const std::uint32_t *planes = search.planes + tile * tile_words(n_units);
        __syncthreads(); // the tile before is done
        for (int slot = static_cast<int>(threadIdx.x); slot < n_slots; slot += P::kThreads) {
            const std::int32_t limit = __ldcg(search.limits + first_query + slot);
            if (limit < shared.limits()[slot]) {
                shared.limits()[slot] = limit;
                shared.starts()[slot] = packed_start<kHigh>(limit, shared.parities()[slot]);
            }
        }
        set_ends(planes + n_units * kUnitRows * kTileRegisters, shared.ends());
        if constexpr (!P::kSegmented)
            build_table<P>(planes);
        __syncthreads(); // table, ends and limits are there
        const Word allowed = allowed_codes(search, tile, group.lane);
        for (int round = 0; round < n_slots; round += P::kGroups) {
            const bool exists = round + group_number < n_slots;
            const int slot = exists ? round + group_number : n_slots - 1;
            // A group without a query reads no start that another one may be lowering.
            const std::uint32_t start = exists ? shared.starts()[slot] : kEverything;
            Offsets offsets_of_slot{shared.offsets(slot),
                                    group.lane * static_cast<std::uint32_t>(sizeof(Word))};
            Counter<kHigh> counter =
                start_counter<kHigh>(start, shared.ends() + group.lane * sizeof(Word));
            if constexpr (P::kSegmented) {
                for (std::int32_t unit = 0; unit < n_units; unit += kUnits) {
                    __syncthreads(); // the segment before is done
                    build_table<P>(planes + unit * kUnitRows * kTileRegisters);
                    __syncthreads(); // the segment's table is there
                    add_units<kUnits>(counter, kUnits, shared_memory(), offsets_of_slot);
                    offsets_of_slot += kUnits * kUnitPicks;
                }
            } else {
                add_units<kUnits>(counter, kUnits, shared_memory(), offsets_of_slot);
            }
            const std::uint32_t not_everything = start & kEverything ? 0u : ~0u;
            const Word hits = each_part(
                [&](int i) { return allowed.part[i] & ~(counter.over.part[i] & not_everything); });
            const bool any =
                exists && (hits.part[0] | hits.part[1] | hits.part[2] | hits.part[3]) != 0;
            if (__any_sync(~0u, any))
                offer_hits<kHigh>(search, first_query + slot, exists, tile * kTileCodes, hits,
                                  shared.limits() + slot, shared.starts() + slot,
                                  shared.parities()[slot]);
        }
    }
}

} // namespace
} // namespace ssbhash::cuda::searching
