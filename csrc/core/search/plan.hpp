// Splits a search among threads.
#pragma once

#include "core/search/scan.hpp"

#include <atomic>
#include <cstddef>
#include <vector>

namespace ssbhash {

// Queries are split into tiles. If there are fewer tiles than threads, the codes are split into
// slices too.
struct Plan {
    std::size_t tile, n_tiles;
    std::size_t slice, n_slices;

    // For n codes, and queries that keep up to bytes_each of what they find.
    Plan(std::size_t n_queries, std::size_t n, std::size_t bytes_each, std::size_t n_threads,
         std::size_t block_codes);
};

// Planes are laid out for one instruction set, so that one searches them, even if another is in
// use.
inline const SearchKernels &kernels_for(const Database &database) {
    return (database.planes ? database.planes->isa() : active_isa()).search;
}

// Few queries are scanned by row. This is fastest in the order of memory, not in that of the
// planes.
inline Database in_order_of_id(Database database) {
    if (database.balls())
        database.planes = nullptr;
    return database;
}

// Computes parts[t * n_slices + s] = scan(task) for each tile t and slice s. Then calls, once for
// each tile, done(first query, its parts, check).
template <typename Part, typename Scan, typename Done>
void scan_all(const Database &database, const Codes &queries, std::size_t bytes_each,
              const Schedule &schedule, const Scan &scan, const Done &done) {
    const SearchKernels &kernels = kernels_for(database);
    const Plan plan(queries.n, database.n(), bytes_each, schedule.n_threads, kernels.block_codes);
    const Database in_order = in_order_of_id(database);
    std::vector<Part> parts(plan.n_tiles * plan.n_slices);
    std::vector<std::atomic<std::size_t>> missing(plan.n_tiles);
    for (auto &one : missing)
        one = plan.n_slices;
    const auto task = [&](std::size_t i, const Check &check) {
        const std::size_t t = i / plan.n_slices, s = i % plan.n_slices;
        const std::size_t first = t * plan.tile;
        const Codes some{queries.row(first), std::min(plan.tile, queries.n - first),
                         queries.n_bytes};
        const std::size_t begin = s * plan.slice;
        const Database &rows = some.n < database.min_table_queries() ? in_order : database;
        parts[i] = scan(
            ScanTask{rows, some, begin, std::min(begin + plan.slice, database.n()), kernels, check},
            first);
        if (--missing[t] == 0) {
            const auto begin_parts = parts.begin() + static_cast<std::ptrdiff_t>(t * plan.n_slices);
            done(first,
                 std::vector<Part>(std::make_move_iterator(begin_parts),
                                   std::make_move_iterator(
                                       begin_parts + static_cast<std::ptrdiff_t>(plan.n_slices))),
                 check);
        }
    };
    parallel_for(parts.size(), schedule.n_threads, task, schedule.poll);
}

} // namespace ssbhash
