// All codes within a radius of each query: counted before memory is taken for them.
#pragma once

#include "core/base/threads.hpp"
#include "core/search/database.hpp"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace ssbhash {

// Thrown before the results are allocated: there are more than were asked for.
struct TooManyResults : std::runtime_error {
    explicit TooManyResults(std::uint64_t n)
        : std::runtime_error("too many results"), n_results(n) {}
    std::uint64_t n_results;
};

// In CSR form: query i owns [lims[i], lims[i + 1]).
struct Range {
    std::vector<std::int64_t> lims; // [queries.n + 1]
    std::vector<std::int32_t> distances;
    std::vector<std::int64_t> ids;
};

// All (distance, id) with distance <= radii[i] of query i, ascending. Small results are kept
// as they are found. Where there are more, the codes are scanned twice: counted by distance,
// then written to their places, so that little memory is taken beside the results.
Range within(const Database &database, const Codes &queries, const std::int64_t *radii,
             std::uint64_t max_results, const Schedule &schedule);

// How many they are for each query.
std::vector<std::int64_t> count_within(const Database &database, const Codes &queries,
                                       const std::int64_t *radii, const Schedule &schedule);

struct Pairs {
    std::vector<std::int64_t> first, second;
    std::vector<std::int32_t> distances;
};

// All pairs first < second of rows with distance <= radius, in order.
Pairs pairs_within(const Database &database, std::size_t radius, std::uint64_t max_results,
                   const Schedule &schedule);

} // namespace ssbhash
