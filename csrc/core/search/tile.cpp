#include "core/search/tile.hpp"

#include <numeric>
#include <utility>

namespace ssbhash {

QueryTile::QueryTile(const Codes &queries, std::vector<Sink *> sinks, const SearchKernels &kernels)
    : kernels_(kernels), queries_(queries.n), sinks_(std::move(sinks)), parities_(queries.n),
      offsets_(queries.n * units_of(queries.n_bytes) * kUnitPicks),
      starts_(queries.n * (kMaxCounterBits + 1)), chosen_(queries.n),
      tile_{queries.n,     queries.n_bytes,  units_of(queries.n_bytes), queries_.data(),
            sinks_.data(), parities_.data(), offsets_.data(),           starts_.data(),
            queries.n,     chosen_.data()} {
    std::iota(chosen_.begin(), chosen_.end(), 0u);
    for (std::size_t slot = 0; slot < queries.n; ++slot) {
        queries_[slot] = queries.row(slot);
        kernels.set_query(tile_, slot);
        kernels.set_limit(tile_, slot);
    }
}

void QueryTile::drop_finished() {
    for (std::size_t slot = 0; slot < tile_.n_slots;) {
        if (sinks_[slot]->limit > 0) {
            ++slot;
            continue;
        }
        const std::size_t last = --tile_.n_slots;
        queries_[slot] = queries_[last];
        sinks_[slot] = sinks_[last];
        kernels_.set_query(tile_, slot);
        if (sinks_[slot]->limit > 0)
            kernels_.set_limit(tile_, slot);
    }
    tile_.n_chosen = tile_.n_slots;
}

} // namespace ssbhash
