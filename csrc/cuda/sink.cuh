// Where the codes found go: the k smallest by counting, or all of a radius.
#pragma once

#include "cuda/search.hpp"
#include "cuda/word.cuh"

namespace ssbhash::cuda::searching {
namespace {

// Lanes of a warp that work on one query together.
template <int kLanes>
struct Group {
    unsigned first = threadIdx.x % 32 / kLanes * kLanes;
    unsigned lane = threadIdx.x % kLanes;
    unsigned mask = (kLanes == 32 ? ~0u : (1u << kLanes % 32) - 1) << first;

    __device__ unsigned ballot(bool is_set) const {
        return (__ballot_sync(mask, is_set) & mask) >> first;
    }
    template <typename T>
    __device__ T from(int source, T value) const {
        return __shfl_sync(mask, value, source, kLanes);
    }
    __device__ std::uint32_t sum(std::uint32_t value) const {
        for (int step = 1; step < kLanes; step *= 2)
            value += __shfl_xor_sync(mask, value, step, kLanes);
        return value;
    }
    __device__ std::uint32_t sum_up_to_lane(std::uint32_t value) const {
        for (unsigned step = 1; step < kLanes; step *= 2) {
            const std::uint32_t below = __shfl_up_sync(mask, value, step, kLanes);
            value += lane >= step ? below : 0;
        }
        return value;
    }
    __device__ void sync() const { __syncwarp(mask); }
    __device__ unsigned rank(unsigned ballot) const { return __popc(ballot & ((1u << lane) - 1)); }
};

__device__ inline std::uint32_t load_word(const DeviceCodes &codes, const std::uint8_t *row,
                                          int word) {
    const bool is_aligned =
        codes.n_bytes % 4 == 0 && reinterpret_cast<std::uintptr_t>(codes.rows) % 4 == 0;
    if (is_aligned)
        return reinterpret_cast<const std::uint32_t *>(row)[word];
    std::uint32_t value = 0;
    for (int i = 0; i < 4 && 4 * word + i < codes.n_bytes; ++i)
        value |= std::uint32_t{row[4 * word + i]} << 8 * i;
    return value;
}

__device__ inline std::int32_t distance(const Search &search, std::int64_t row,
                                        const std::uint8_t *query) {
    const DeviceCodes as_codes{search.queries, search.n_queries, search.codes.n_bytes};
    const std::uint8_t *code = search.codes.rows + row * search.codes.n_bytes;
    std::int32_t sum = 0;
    for (int word = 0; 4 * word < search.codes.n_bytes; ++word)
        sum += __popc(load_word(search.codes, code, word) ^ load_word(as_codes, query, word));
    return sum;
}

__device__ inline std::int32_t n_counts(const Search &search) {
    return 8 * search.codes.n_bytes + 1;
}
__device__ inline std::int32_t distance_of(std::int64_t key) {
    return static_cast<std::int32_t>(key >> kIdBits);
}

struct Bound {
    std::int32_t limit;    // the least below which there are k codes
    std::int64_t n_nearer; // codes below limit - 1
};

// Where k codes are to be had, by how many there are at each distance; {limit, 0} if there are
// fewer below `limit`. All lanes of the group get it.
template <int kLanes, typename CountOf>
__device__ Bound bound_of_nearest(const Group<kLanes> &group, const CountOf &count_of,
                                  std::int64_t k, std::int32_t limit) {
    std::int64_t below = 0;
    for (std::int32_t first = 0; first < limit; first += kLanes) {
        const std::int32_t d = first + static_cast<std::int32_t>(group.lane);
        const std::uint32_t here = d < limit ? count_of(d) : 0;
        const std::uint32_t up_to = group.sum_up_to_lane(here);
        const unsigned enough = group.ballot(below + up_to >= k);
        if (enough != 0) {
            const int lane = __ffs(enough) - 1;
            return {first + lane + 1, below + group.from(lane, up_to - here)};
        }
        below += group.from(kLanes - 1, up_to);
    }
    return {limit, 0};
}

// The list of one query and slice, and what decides whether a code goes on it. All lanes of the
// group hold the same.
template <int kLanes>
class Sink {
  public:
    __device__ Sink(const Search &search, std::int64_t query, std::int64_t slice,
                    std::int32_t *limit)
        : search_(search), query_(query), pair_(query * search.n_slices + slice), limit_(limit),
          found_(search.found + (search.starts ? search.starts[pair_] : pair_ * search.capacity)),
          room_(search.starts ? search.starts[pair_ + 1] - search.starts[pair_] : search.capacity),
          n_found_(search.n_found[pair_]) {}

    // Offer codes first + bit for each bit of `hits`; only distance < limit is taken.
    // Ids ascend from call to call, so equal distances keep the smaller ids.
    __device__ void offer(unsigned hits, std::int64_t first) {
        for (int step = 0; step < 32 / kLanes; ++step) {
            const unsigned bits = hits >> step * kLanes & group_.mask >> group_.first;
            if (bits != 0)
                take(bits, first + step * kLanes);
        }
    }

    // Note what was found, and lower the limit as far as that allows.
    __device__ void close() {
        group_.sync();
        if (group_.lane == 0)
            search_.n_found[pair_] = n_found_;
        if (search_.k > 0 && has_grown_)
            lower_limit();
        group_.sync();
    }

  private:
    __device__ void take(unsigned bits, std::int64_t first) {
        const std::int64_t position = first + group_.lane;
        const bool is_hit = bits >> group_.lane & 1;
        const std::uint8_t *query = search_.queries + query_ * search_.codes.n_bytes;
        const std::int32_t d = is_hit ? distance(search_, position, query) : 0;
        unsigned taken = group_.ballot(is_hit && d < *limit_);
        if (search_.k > 0 && n_found_ + __popc(taken) > room_) {
            keep_smallest();
            taken = group_.ballot(is_hit && d < *limit_);
        }
        if (taken >> group_.lane & 1) {
            const std::int64_t place = n_found_ + group_.rank(taken);
            if (place < room_) // rows may have changed since they were counted
                found_[place] = std::int64_t{d} << kIdBits | (search_.first_id + position);
            if (search_.k > 0)
                atomicAdd(search_.counts + query_ * n_counts(search_) + d, 1u);
        }
        n_found_ += __popc(taken);
        has_grown_ |= taken != 0;
        group_.sync();
    }

    // How many on the list are nearer than `bound`.
    __device__ std::int64_t n_below(std::int32_t bound) const {
        std::uint32_t n = 0;
        for (std::int64_t i = group_.lane; i < n_found_; i += kLanes)
            n += distance_of(found_[i]) < bound;
        return group_.sum(n);
    }

    // Leave the k smallest on the list. From now on a code of this slice must be nearer than
    // the last of them, for its id is larger.
    __device__ void keep_smallest() {
        std::int32_t low = 0, high = *limit_; // n_below(low) < k <= n_below(high + 1)
        while (low < high) {
            const std::int32_t middle = low + (high - low) / 2;
            if (n_below(middle + 1) >= search_.k)
                high = middle;
            else
                low = middle + 1;
        }
        std::int64_t ties = search_.k - n_below(low), kept = 0;
        for (std::int64_t i = 0; i < n_found_; i += kLanes) {
            const bool exists = i + group_.lane < n_found_;
            const std::int64_t key = exists ? found_[i + group_.lane] : kNothingFound;
            const unsigned tied = group_.ballot(exists && distance_of(key) == low);
            const bool stays = exists && (distance_of(key) < low ||
                                          (distance_of(key) == low && group_.rank(tied) < ties));
            const unsigned staying = group_.ballot(stays);
            if (stays)
                found_[kept + group_.rank(staying)] = key;
            kept += __popc(staying);
            ties -= __popc(tied);
            ties = ties < 0 ? 0 : ties;
            group_.sync();
        }
        n_found_ = kept;
        set_limit(low);
    }

    // The least limit below which all slices together have found k codes. A code at the k-th
    // distance may still win its tie, for other slices have other ids.
    __device__ void lower_limit() {
        const std::uint32_t *counts = search_.counts + query_ * n_counts(search_);
        const std::int32_t limit = *limit_;
        const auto count_of = [&](std::int32_t d) { return __ldcg(counts + d); };
        const std::int32_t least = bound_of_nearest(group_, count_of, search_.k, limit).limit;
        if (least < limit) {
            set_limit(least);
            if (group_.lane == 0)
                atomicMin(search_.limits + query_, least);
        }
    }

    __device__ void set_limit(std::int32_t limit) {
        group_.sync();
        if (group_.lane == 0)
            *limit_ = limit;
        group_.sync();
    }

    const Search &search_;
    Group<kLanes> group_;
    std::int64_t query_, pair_;
    std::int32_t *limit_; // in shared memory
    std::int64_t *found_;
    std::int64_t room_; // on the list
    std::int64_t n_found_;
    bool has_grown_ = false;
};

} // namespace
} // namespace ssbhash::cuda::searching
