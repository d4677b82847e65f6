// The engine: which kernel for which problem, split among threads, merged.
#pragma once

#include "core/base/threads.hpp"
#include "core/search/database.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

// The k <= database.n() smallest (distance, id) of each query, ascending; both
// outputs have shape [queries.n, k].
void search(const Database &database, const Codes &queries, std::size_t k, const Schedule &schedule,
            std::int32_t *out_distances, std::int64_t *out_ids);

struct Range {
    std::vector<std::int64_t> lims; // [queries.n + 1]
    std::vector<std::int32_t> distances;
    std::vector<std::int64_t> ids;
};

// All (distance, id) with distance <= radius, ascending for each query.
Range within(const Database &database, const Codes &queries, std::size_t radius,
             const Schedule &schedule);

struct Pairs {
    std::vector<std::int64_t> first, second;
    std::vector<std::int32_t> distances;
};

// All pairs first < second of rows with distance <= radius, in order.
Pairs pairs_within(const Codes &codes, std::size_t radius, const Schedule &schedule);

// The full matrix [queries.n, database.n]; n_bytes * 8 must fit in 16 bits.
void distances(const Codes &database, const Codes &queries, const Schedule &schedule,
               std::uint16_t *out);

} // namespace ssbhash
