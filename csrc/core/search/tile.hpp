// Owns the arrays of a Tile, the queries that are scanned together.
#pragma once

#include "core/base/aligned.hpp"
#include "core/search/search_kernels.hpp"

#include <vector>

namespace ssbhash {

class QueryTile {
  public:
    // Makes a slot for each query; sinks[i] belongs to query i.
    QueryTile(const Codes &queries, std::vector<Sink *> sinks, const SearchKernels &kernels);

    Tile &tile() { return tile_; }

    // Drops slots whose sink accepts nothing any more (limit 0).
    void drop_finished();

  private:
    const SearchKernels &kernels_;
    std::vector<const std::uint8_t *> queries_;
    std::vector<Sink *> sinks_;
    std::vector<std::uint8_t> parities_;
    Scratch offsets_;
    std::vector<std::uint64_t> starts_;
    std::vector<std::uint32_t> chosen_;
    Tile tile_;
};

} // namespace ssbhash
