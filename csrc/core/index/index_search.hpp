// Searching the segments of an index.
#pragma once

#include "core/base/threads.hpp"
#include "core/index/collector.hpp"
#include "core/index/segment.hpp"

#include <cstdint>
#include <vector>

namespace ssbhash {

struct IndexQueries {
    Codes codes;
    std::size_t k;                // 0: all within max_distance
    std::size_t max_distance;     // inclusive
    const std::int64_t *excluded; // [codes.n] an id that each query must not find, or null
    IdMask mask;                  // of all segments
};

// Returns what each query finds in all segments, ascending by (distance, id). An id is in one
// segment only.
std::vector<std::vector<Neighbour>> search_index(const std::vector<Segment> &segments,
                                                 const IndexQueries &queries,
                                                 const Schedule &schedule);

// Returns the share of queries for which a segment's tables find the k nearest for less than a
// scan costs.
double share_probed(const Segment &segment, const Codes &queries, std::size_t k);

} // namespace ssbhash
