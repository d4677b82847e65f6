// Pairs of codes within a radius, through postings: near-duplicates at scale.
#pragma once

#include "core/base/codes.hpp"
#include "core/base/threads.hpp"
#include "core/search/radius.hpp"

#include <cstdint>
#include <vector>

namespace ssbhash {

// Returns the pairs of `pairs_within`, in the same order: through postings or by comparing all
// pairs, whichever costs less.
Pairs near_pairs(const Database &database, std::size_t radius, std::uint64_t max_results,
                 const Schedule &schedule);

// Returns for each row the smallest row of its group. Rows are in one group if a chain of pairs
// within the radius joins them. Memory is linear in the rows, however many pairs there are.
std::vector<std::int64_t> near_groups(const Codes &codes, std::size_t radius,
                                      const Schedule &schedule);

} // namespace ssbhash
