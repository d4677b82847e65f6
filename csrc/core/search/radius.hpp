// All codes within a radius of each query. Results are counted before memory is taken for them.
#pragma once

#include "core/base/threads.hpp"
#include "core/search/database.hpp"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace ssbhash {

// Thrown if there are more results than allowed, before memory is taken for them.
struct TooManyResults : std::runtime_error {
    explicit TooManyResults(std::uint64_t n)
        : std::runtime_error("too many results"), n_results(n) {}
    std::uint64_t n_results;
};

// Results in CSR form: query i owns those from lims[i] to lims[i + 1].
struct Range {
    std::vector<std::int64_t> lims; // [queries.n + 1]
    std::vector<std::int32_t> distances;
    std::vector<std::int64_t> ids;
};

// Returns all (distance, id) with distance <= radii[i] of query i, ascending. Small results are
// kept as they are found. For large ones the codes are scanned twice: the first scan counts by
// distance, the second writes results to their places. So little memory is taken beside the
// results.
Range within(const Database &database, const Codes &queries, const std::int64_t *radii,
             std::uint64_t max_results, const Schedule &schedule);

// Returns the number of these for each query.
std::vector<std::int64_t> count_within(const Database &database, const Codes &queries,
                                       const std::int64_t *radii, const Schedule &schedule);

struct Pairs {
    std::vector<std::int64_t> first, second;
    std::vector<std::int32_t> distances;
};

// Returns all pairs of rows first < second with distance <= radius, in ascending order.
Pairs pairs_within(const Database &database, std::size_t radius, std::uint64_t max_results,
                   const Schedule &schedule);

// Returns the share that pairs of n rows with themselves and later rows have in all pairs.
inline double share_of_pairs(std::size_t first, std::size_t n, std::size_t n_rows) {
    const auto rest = [&](std::size_t row) {
        const double share = static_cast<double>(n_rows - row) / static_cast<double>(n_rows);
        return share * share;
    };
    return rest(first) - rest(first + n);
}

} // namespace ssbhash
