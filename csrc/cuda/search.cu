#include "cuda/search.hpp"

#include "cuda/launch.hpp"
#include "cuda/matrix_scan.cuh"
#include "cuda/plane_scan.cuh"
#include "cuda/row_scan.cuh"
#include "cuda/select.cuh"

#include <algorithm>

namespace ssbhash::cuda::searching {
namespace {

constexpr std::int32_t kMaxPlaneBytes = 256;

int device_fact(cudaDeviceAttr attribute) {
    int device = 0, value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, attribute, device);
    return value;
}

int shared_limit() { return device_fact(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// Calls action(Plan) with the plan for codes of this width: the smallest that holds all units.
template <typename Action>
auto with_plan(std::int64_t n_units, const Action &action) {
    switch (n_units) {
    case 1:
        return action(Plan<1, 0, false>{});
    case 2:
        return action(Plan<2, 0, false>{});
    case 3:
        return action(Plan<3, 1, false>{});
    case 4:
        return action(Plan<4, 1, false>{});
    default:
        if (n_units == 8 && SharedLayout<Plan<8, 2, false>>{64}.bytes() <= shared_limit())
            return action(Plan<8, 2, false>{});
        if (n_units <= 16)
            return action(Plan<4, 3, true>{});
        return action(Plan<4, 6, true>{});
    }
}

template <typename P>
int shared_bytes(P, std::int64_t n_units) {
    return SharedLayout<P>{static_cast<int>(n_units * std::int64_t{kUnitPicks})}.bytes();
}

cudaError_t scan_by_planes(const Search &search, void *scratch, cudaStream_t stream) {
    const std::int64_t n_units = plane_units(search.codes.n_bytes);
    auto *offsets = static_cast<Offset *>(scratch);
    auto *parities = reinterpret_cast<std::uint8_t *>(offsets + search.n_queries * n_units *
                                                                    std::int64_t{kUnitPicks});
    const auto units = static_cast<std::int32_t>(n_units);
    const cudaError_t error =
        launch(set_queries, over(search.n_queries, kPlaneThreads), 1, kPlaneThreads, 0, stream,
               search.queries, search.n_queries, search.codes.n_bytes, units, offsets, parities);
    if (error != cudaSuccess)
        return error;
    return with_plan(n_units, [&](auto plan) {
        using P = decltype(plan);
        return launch(scan_planes<P>, search.n_slices, over(search.n_queries, P::kQueries),
                      P::kThreads, shared_bytes(plan, n_units), stream, search, units,
                      static_cast<const Offset *>(offsets),
                      static_cast<const std::uint8_t *>(parities));
    });
}

cudaError_t scan_by_rows(const Search &search, cudaStream_t stream) {
    const auto run = [&](auto kernel, int n_words) {
        const int bytes = kRowQueries * 4 * (n_words + kRowWarps);
        return launch(kernel, over(search.n_slices, kRowWarps), over(search.n_queries, kRowQueries),
                      kRowThreads, bytes, stream, search);
    };
    switch ((search.codes.n_bytes + 3) / 4) {
    case 1:
        return run(scan_rows<1>, 1);
    case 2:
        return run(scan_rows<2>, 2);
    case 4:
        return run(scan_rows<4>, 4);
    case 8:
        return run(scan_rows<8>, 8);
    default:
        return run(scan_rows<0>, 0);
    }
}

cudaError_t scan_by_matrix(const Search &search, cudaStream_t stream) {
    const auto run = [&](auto kernel, auto plan) {
        using P = decltype(plan);
        const std::int64_t n_warps = over(search.n_queries, P::kWarpQueries);
        const auto of_block = static_cast<int>(std::min(n_warps, std::int64_t{kMostMatrixWarps}));
        return launch(kernel, search.n_slices, over(n_warps, of_block), 32 * of_block,
                      of_block * P::kWarpBytes, stream, search);
    };
    switch (search.codes.n_bytes) {
    case 8:
        return run(scan_by_products<2>, MatrixPlan<2>{});
    case 16:
        return run(scan_by_products<4>, MatrixPlan<4>{});
    case 32:
        return run(scan_by_products<8>, MatrixPlan<8>{});
    default:
        return cudaErrorInvalidValue;
    }
}

constexpr int kDistanceThreads = 128;

__global__ void __launch_bounds__(kDistanceThreads)
    all_distances(const __grid_constant__ Search search, std::uint16_t *out) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kDistanceThreads + threadIdx.x;
    const std::uint8_t *query = search.queries + std::int64_t{blockIdx.y} * search.codes.n_bytes;
    if (row < search.codes.n)
        out[blockIdx.y * search.codes.n + row] =
            static_cast<std::uint16_t>(distance(search, row, query));
}

} // namespace

std::int64_t plane_units(std::int32_t n_bytes) {
    const std::int64_t n_units = over(n_bytes, 2);
    return n_units <= 4 ? n_units : over(n_units, 4) * 4;
}

std::int64_t plane_words(std::int64_t n, std::int32_t n_bytes) {
    return over(n, kTileCodes) * tile_words(plane_units(n_bytes));
}

bool has_plane_kernel(std::int32_t n_bytes) {
    const std::int64_t n_units = plane_units(n_bytes);
    return n_bytes <= kMaxPlaneBytes && with_plan(n_units, [&](auto plan) {
               return shared_bytes(plan, n_units) <= shared_limit();
           });
}

bool has_matrix_kernel(const DeviceCodes &codes) {
    const int major = device_fact(cudaDevAttrComputeCapabilityMajor);
    const bool is_wide_enough = codes.n_bytes == 8 || codes.n_bytes == 16 || codes.n_bytes == 32;
    return (major == 8 || major == 9) && is_wide_enough && codes.n >= 32 &&
           reinterpret_cast<std::uintptr_t>(codes.rows) % 4 == 0;
}

cudaError_t make_planes(const DeviceCodes &codes, std::uint32_t *planes, cudaStream_t stream) {
    return launch(transpose_rows, over(codes.n, kTileCodes) * kTileRegisters / kPlaneThreads + 1, 1,
                  kPlaneThreads, 0, stream, codes,
                  static_cast<std::int32_t>(plane_units(codes.n_bytes)), planes);
}

std::int64_t scratch_bytes(std::int64_t n_queries, std::int32_t n_bytes) {
    const auto picks = std::int64_t{kUnitPicks} * plane_units(n_bytes);
    return n_queries * (picks * std::int64_t{sizeof(Offset)} + 1);
}

cudaError_t sample_limits(const Search &search, std::int64_t n_sample, cudaStream_t stream) {
    const std::int64_t bytes = 4 * (8 * std::int64_t{search.codes.n_bytes} + 1);
    if (bytes > shared_limit()) // limits only save work
        return cudaSuccess;
    return launch(bound_by_sample, search.n_queries, 1, kSampleThreads, static_cast<int>(bytes),
                  stream, search, n_sample);
}

cudaError_t select_nearest(const Search &search, std::int64_t *nearest, cudaStream_t stream) {
    const auto n_warps = static_cast<int>(over(search.n_slices, 32));
    return launch(collect_nearest, search.n_queries, 1, std::min(32 * n_warps, kMostSelectThreads),
                  kSelectBytes, stream, search, nearest);
}

cudaError_t scan(const Search &search, void *scratch, cudaStream_t stream) {
    if (search.codes.n == 0 || search.n_queries == 0)
        return cudaSuccess;
    switch (search.kernel) {
    case Kernel::planes:
        return scan_by_planes(search, scratch, stream);
    case Kernel::matrix:
        return scan_by_matrix(search, stream);
    default:
        return scan_by_rows(search, stream);
    }
}

cudaError_t distances(const DeviceCodes &codes, const std::uint8_t *queries, std::int64_t n_queries,
                      std::uint16_t *out, cudaStream_t stream) {
    constexpr std::int64_t kMaxRows = 65535; // of a grid
    Search search{};
    search.codes = codes;
    for (std::int64_t first = 0; first < n_queries; first += kMaxRows) {
        search.queries = queries + first * codes.n_bytes;
        search.n_queries = std::min(kMaxRows, n_queries - first);
        const cudaError_t error =
            launch(all_distances, over(codes.n, kDistanceThreads), search.n_queries,
                   kDistanceThreads, 0, stream, search, out + first * codes.n);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

} // namespace ssbhash::cuda::searching
