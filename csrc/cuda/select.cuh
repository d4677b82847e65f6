// Before a scan, a first limit of each query from a sample of the codes; after it, the k smallest
// on the lists of all slices.
#pragma once

#include "cuda/sink.cuh"

namespace ssbhash::cuda::searching {
namespace {

constexpr int kSampleThreads = 512;
constexpr int kMostSelectThreads = 1024;
constexpr int kSelectBytes = 2 * 4 * kMostSelectThreads / 32;

// A block counts for one query how far every stride-th code is. Where k of them are allowed, the
// k-th distance in the sample bounds that in all.
__global__ void __launch_bounds__(kSampleThreads)
    bound_by_sample(const __grid_constant__ Search search, std::int64_t n_sample) {
    const Group<32> group;
    auto *counts = reinterpret_cast<std::uint32_t *>(shared_memory());
    const std::int64_t query = blockIdx.x, stride = search.codes.n / n_sample;
    const std::uint8_t *code = search.queries + query * search.codes.n_bytes;
    const auto thread = static_cast<std::int32_t>(threadIdx.x);
    for (std::int32_t d = thread; d < n_counts(search); d += kSampleThreads)
        counts[d] = 0;
    __syncthreads(); // counts are zero
    for (std::int64_t i = thread; i < n_sample; i += kSampleThreads) {
        const std::int64_t row = i * stride;
        if (!search.allowed || (search.allowed[row / 32] >> row % 32 & 1) != 0)
            atomicAdd(counts + distance(search, row, code), 1u);
    }
    __syncthreads(); // all are counted
    if (threadIdx.x < 32) {
        const Bound bound = bound_of_nearest(
            group, [&](std::int32_t d) { return counts[d]; }, search.k, search.limits[query]);
        if (group.lane == 0)
            search.limits[query] = bound.limit;
    }
}

// A block goes through the lists of one query, a thread through that of one slice at a time. Ids
// ascend from slice to slice and on each list, so `nearest` [n_queries][k] is in the order of ids.
__global__ void __launch_bounds__(kMostSelectThreads)
    collect_nearest(const __grid_constant__ Search search, std::int64_t *nearest) {
    const Group<32> group;
    const std::int64_t query = blockIdx.x;
    const int warp = static_cast<int>(threadIdx.x) / 32,
              n_warps = static_cast<int>(blockDim.x) / 32;
    auto *nearer_of_warp = reinterpret_cast<std::uint32_t *>(shared_memory());
    std::uint32_t *tied_of_warp = nearer_of_warp + n_warps;
    const std::uint32_t *counts = search.counts + query * n_counts(search);
    const Bound bound = bound_of_nearest(
        group, [&](std::int32_t d) { return counts[d]; }, search.k, n_counts(search));
    const std::int32_t last = bound.limit - 1; // the k-th distance
    const std::int64_t n_ties = search.k - bound.n_nearer;
    std::int64_t *out = nearest + query * search.k;
    std::int64_t nearer = 0, tied = 0; // in the slices before
    for (std::int32_t first = 0; first < search.n_slices;
         first += static_cast<std::int32_t>(blockDim.x)) {
        const std::int64_t slice = first + static_cast<std::int64_t>(threadIdx.x);
        const std::int64_t pair = query * search.n_slices + slice;
        const std::int64_t *list = search.found + pair * search.capacity;
        const std::int64_t n = slice < search.n_slices ? search.n_found[pair] : 0;
        std::uint32_t own_nearer = 0, own_tied = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            own_nearer += distance_of(list[i]) < last;
            own_tied += distance_of(list[i]) == last;
        }
        const std::uint32_t nearer_to_lane = group.sum_up_to_lane(own_nearer);
        const std::uint32_t tied_to_lane = group.sum_up_to_lane(own_tied);
        if (group.lane == 31) {
            nearer_of_warp[warp] = nearer_to_lane;
            tied_of_warp[warp] = tied_to_lane;
        }
        __syncthreads(); // sums of the warps are there
        std::int64_t nearer_before = nearer + nearer_to_lane - own_nearer;
        std::int64_t tied_before = tied + tied_to_lane - own_tied;
        for (int other = 0; other < n_warps; ++other) {
            nearer_before += other < warp ? nearer_of_warp[other] : 0;
            tied_before += other < warp ? tied_of_warp[other] : 0;
            nearer += nearer_of_warp[other];
            tied += tied_of_warp[other];
        }
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int32_t d = distance_of(list[i]);
            if (d < last || (d == last && tied_before < n_ties))
                out[nearer_before + (tied_before < n_ties ? tied_before : n_ties)] = list[i];
            nearer_before += d < last;
            tied_before += d == last;
        }
        __syncthreads(); // sums of the warps were read
    }
    const std::int64_t n_found = nearer + (tied < n_ties ? tied : n_ties);
    for (std::int64_t i = n_found + threadIdx.x; i < search.k; i += blockDim.x)
        out[i] = kNothingFound;
}

} // namespace
} // namespace ssbhash::cuda::searching
