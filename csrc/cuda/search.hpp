// Exact search on a device: what the kernels take. All pointers are to the device's memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace ssbhash::cuda::searching {

// A pair (distance, id) that was found, as one number in the order of both.
inline constexpr int kIdBits = 40;
inline constexpr std::int64_t kNothingFound = INT64_MAX;

struct DeviceCodes {
    const std::uint8_t *rows; // [n][n_bytes]
    std::int64_t n;
    std::int32_t n_bytes;
};

enum class Kernel : std::int32_t { rows, planes, matrix };

// One search. Codes are split into slices of consecutive ids and each slice keeps its own list
// for each query, ascending by id: found [n_queries][n_slices][capacity].
struct Search {
    Kernel kernel;
    DeviceCodes codes;
    const std::uint32_t *planes;  // by make_planes, for Kernel::planes
    const std::uint32_t *allowed; // bit i % 32 of word i / 32: search code i; null: all
    std::int64_t first_id;        // of the first code
    const std::uint8_t *queries;  // [n_queries][n_bytes]
    std::int64_t n_queries;
    std::int64_t k;             // 0: all codes below the limits, which stay
    std::int32_t *limits;       // [n_queries] only codes with distance < limit are wanted
    std::uint32_t *counts;      // [n_queries][8 * n_bytes + 1] codes found by distance; k = 0: null
    const std::int64_t *starts; // [n_queries * n_slices + 1] where lists begin and the last ends;
                                // null: each has room for `capacity`
    std::int64_t *found;
    std::int64_t *n_found; // [n_queries][n_slices]
    std::int64_t capacity; // at least k + 32 where k > 0; 0 without `starts`: count only
    std::int32_t n_slices;
};

// Planes come in units of 16: this many for codes of n_bytes.
std::int64_t plane_units(std::int32_t n_bytes);
// What the planes of n codes take, in words of 32 bits.
std::int64_t plane_words(std::int64_t n, std::int32_t n_bytes);
// Whether there is a kernel that scans the planes of such codes.
bool has_plane_kernel(std::int32_t n_bytes);
// Whether the current device's matrix units can compare these codes.
bool has_matrix_kernel(const DeviceCodes &codes);

cudaError_t make_planes(const DeviceCodes &codes, std::uint32_t *planes, cudaStream_t stream);

// `scratch` of scratch_bytes holds what the queries share with no other search.
std::int64_t scratch_bytes(std::int64_t n_queries, std::int32_t n_bytes);
cudaError_t scan(const Search &search, void *scratch, cudaStream_t stream);

// Before a scan for k > 0: lower limits to what the k-th of n_sample codes, at most n, allows.
cudaError_t sample_limits(const Search &search, std::int64_t n_sample, cudaStream_t stream);
// After a scan for k > 0 without `starts`: the k smallest pairs of each query's lists, by id, then
// kNothingFound. nearest [n_queries][k]
cudaError_t select_nearest(const Search &search, std::int64_t *nearest, cudaStream_t stream);

// distances [n_queries][n]
cudaError_t distances(const DeviceCodes &codes, const std::uint8_t *queries, std::int64_t n_queries,
                      std::uint16_t *out, cudaStream_t stream);

} // namespace ssbhash::cuda::searching
