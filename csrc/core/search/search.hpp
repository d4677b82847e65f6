// The k nearest codes of each query, merging of such results, and plain distances.
#pragma once

#include "core/base/threads.hpp"
#include "core/search/database.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace ssbhash {

// Writes the k smallest (distance, id) of each query with distance <= max_distance, ascending. If
// there are fewer, rows end with kMissing. Both outputs have shape [queries.n, k].
void search(const Database &database, const Codes &queries, std::size_t k, const Schedule &schedule,
            std::int32_t *out_distances, std::int64_t *out_ids,
            std::size_t max_distance = std::numeric_limits<std::size_t>::max());

// Results of one part of a database: [n_queries, k] each. Negative ids are missing.
struct Ranking {
    const std::int32_t *distances;
    const std::int64_t *ids;
    std::size_t k;
};

// Writes the k smallest (distance, id) of all parts, as `search` would.
void merge(const std::vector<Ranking> &parts, std::size_t n_queries, std::size_t k,
           const Schedule &schedule, std::int32_t *out_distances, std::int64_t *out_ids);

// Writes the full matrix of distances [queries.n, database.n]; n_bytes * 8 must fit in 16 bits.
void distances(const Codes &database, const Codes &queries, const Schedule &schedule,
               std::uint16_t *out);

// Writes the distance of row i to row i, [n].
void paired_distances(const Codes &first, const Codes &second, const Schedule &schedule,
                      std::uint16_t *out);

} // namespace ssbhash
