// Scans rows [begin, end) of a database, a slice, for a tile of queries.
#pragma once

#include "core/base/threads.hpp"
#include "core/search/database.hpp"
#include "core/search/top_k.hpp"

#include <memory>
#include <vector>

namespace ssbhash {

struct ScanTask {
    const Database &database;
    Codes queries;
    std::size_t begin, end;
    const SearchKernels &kernels;
    const Check &check; // called between blocks; throws to stop the scan
};

// Returns for each query the k smallest of the slice with distance <= max_distance. Those that
// cannot be among the k smallest of all slices may be missing.
std::vector<std::unique_ptr<Nearest>> scan_nearest(const ScanTask &task, std::size_t k,
                                                   std::size_t max_distance);

// Offers to each query's sink all codes of the slice that are below its limit.
void scan_within(const ScanTask &task, const std::vector<Sink *> &sinks);

// The same for queries that are the first rows of the slice. Each is offered only codes after its
// own row.
void scan_pairs(ScanTask task, const std::vector<Sink *> &sinks);

} // namespace ssbhash
