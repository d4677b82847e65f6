#include "core/search/plan.hpp"

#include <algorithm>

namespace ssbhash {
namespace {

constexpr std::size_t kTileQueries = 1024;
constexpr std::size_t kTileBytes = std::size_t{64} << 20; // memory for results of a tile
constexpr std::size_t kMinSlice = 1 << 16;                // codes worth a thread

} // namespace

Plan::Plan(std::size_t n_queries, std::size_t n, std::size_t bytes_each, std::size_t n_threads,
           std::size_t block_codes) {
    tile = std::clamp<std::size_t>(kTileBytes / bytes_each, 1, kTileQueries);
    if (n_queries >= 256 * n_threads) // each thread has enough queries to share a table
        tile = std::min(tile, (n_queries + n_threads - 1) / n_threads);
    n_tiles = (n_queries + tile - 1) / tile;
    n_slices = 1;
    if (n_tiles < 2 * n_threads && n_threads > 1 && n_tiles % n_threads != 0)
        n_slices = std::clamp<std::size_t>(n / kMinSlice, 1, n_threads);
    slice = (n + n_slices - 1) / n_slices;
    slice = std::max<std::size_t>(1, (slice + block_codes - 1) / block_codes) * block_codes;
    n_slices = std::max<std::size_t>(1, (n + slice - 1) / slice);
}

} // namespace ssbhash
