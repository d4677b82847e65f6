// Scanning rows [begin, end) of a database for a tile of queries.
#pragma once

#include "core/search/database.hpp"
#include "core/search/top_k.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace ssbhash {

using FindingsList = std::vector<std::unique_ptr<Findings>>;

// Measured at 64 bits: with fewer queries, scanning by row is faster than tables.
constexpr std::size_t kMinTableQueries = 10;
constexpr std::size_t kMinPreparedQueries = 7;

struct ScanTask {
    const Database &database;
    Codes queries;
    std::size_t begin, end;
    const SearchKernels &kernels;
    const std::function<void()> &check; // between blocks: throws to stop
};

// The k smallest of the slice for each query, or those of them that are among the k
// smallest of all.
FindingsList scan_nearest(const ScanTask &task, std::size_t k);

// All codes of the slice with distance <= radius.
FindingsList scan_within(const ScanTask &task, std::size_t radius);

// The same, where the queries are the first rows of the slice: for each only the
// codes after its own.
FindingsList scan_pairs(ScanTask task, std::size_t radius);

} // namespace ssbhash
