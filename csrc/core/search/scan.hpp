// Scanning rows [begin, end) of a database for a tile of queries.
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
    const Check &check; // between blocks: throws to stop
};

// The k smallest of the slice for each query, or those of them that are among the k smallest
// of all. Only distances <= max_distance count.
std::vector<std::unique_ptr<Nearest>> scan_nearest(const ScanTask &task, std::size_t k,
                                                   std::size_t max_distance);

// Offer all codes of the slice below its limit to each query's sink.
void scan_within(const ScanTask &task, const std::vector<Sink *> &sinks);

// The same, but the queries are the first rows of the slice: for each only the codes after
// its own.
void scan_pairs(ScanTask task, const std::vector<Sink *> &sinks);

} // namespace ssbhash
