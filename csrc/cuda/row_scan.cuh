// Few queries, or codes that have no plane kernel: row by row, counting bits.
#pragma once

#include "cuda/sink.cuh"

namespace ssbhash::cuda::searching {
namespace {

constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / 32;
constexpr int kRowQueries = 64; // of a block
constexpr int kRefreshSteps = 32;

// Each warp has a slice of its own, a lane one code of 32. Codes of kWords words of 32 bits are
// kept in registers; with kWords = 0 they are read anew for each query.
template <int kWords>
__global__ void __launch_bounds__(kRowThreads, 2) scan_rows(const __grid_constant__ Search search) {
    const Group<32> group;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const std::int64_t first_query = std::int64_t{blockIdx.y} * kRowQueries;
    const std::int64_t left = search.n_queries - first_query;
    const int n_slots = static_cast<int>(left < kRowQueries ? left : kRowQueries);
    const std::int32_t n_words = (search.codes.n_bytes + 3) / 4;
    auto *queries = reinterpret_cast<std::uint32_t *>(shared_memory()); // kWords > 0
    auto *limits =
        reinterpret_cast<std::int32_t *>(queries + kRowQueries * kWords) + warp * kRowQueries;

    const DeviceCodes as_codes{search.queries, search.n_queries, search.codes.n_bytes};
    const auto query_row = [&](int slot) {
        return search.queries + (first_query + slot) * search.codes.n_bytes;
    };
    if constexpr (kWords > 0)
        for (int i = static_cast<int>(threadIdx.x); i < n_slots * kWords; i += kRowThreads)
            queries[i] = load_word(as_codes, query_row(i / kWords), i % kWords);
    __syncthreads(); // the queries are there

    const std::int64_t slice = std::int64_t{blockIdx.x} * kRowWarps + warp;
    if (slice >= search.n_slices)
        return;
    const std::int64_t n_steps = (search.codes.n + 31) / 32;
    const std::int64_t first_step = n_steps * slice / search.n_slices;
    const std::int64_t last_step = n_steps * (slice + 1) / search.n_slices;
    for (int slot = static_cast<int>(group.lane); slot < n_slots; slot += 32)
        limits[slot] = INT32_MAX;
    for (std::int64_t step = first_step; step < last_step; ++step) {
        if ((step - first_step) % kRefreshSteps == 0) {
            group.sync();
            for (int slot = static_cast<int>(group.lane); slot < n_slots; slot += 32) {
                const std::int32_t limit = __ldcg(search.limits + first_query + slot);
                limits[slot] = limit < limits[slot] ? limit : limits[slot];
            }
            group.sync();
        }
        const std::int64_t position = 32 * step + group.lane;
        const bool is_wanted = position < search.codes.n &&
                               (!search.allowed || (search.allowed[step] >> group.lane & 1) != 0);
        const std::uint8_t *row = search.codes.rows + position * search.codes.n_bytes;
        std::uint32_t code[kWords > 0 ? kWords : 1] = {};
        if (is_wanted)
#pragma unroll
            for (int i = 0; i < kWords; ++i)
                code[i] = load_word(search.codes, row, i);
        for (int slot = 0; slot < n_slots; ++slot) {
            std::int32_t d = 0;
            if constexpr (kWords > 0) {
#pragma unroll
                for (int i = 0; i < kWords; ++i)
                    d += __popc(code[i] ^ queries[slot * kWords + i]);
            } else if (is_wanted) {
                for (int i = 0; i < n_words; ++i)
                    d += __popc(load_word(search.codes, row, i) ^
                                load_word(as_codes, query_row(slot), i));
            }
            const unsigned hits = group.ballot(is_wanted && d < limits[slot]);
            if (hits != 0) {
                Sink<32> sink(search, first_query + slot, slice, limits + slot);
                sink.offer(hits, 32 * step);
                sink.close();
            }
        }
    }
}

} // namespace
} // namespace ssbhash::cuda::searching
