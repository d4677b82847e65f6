// What was found for each query, and its order: counting, no heaps.
#pragma once

#include "core/base/codes.hpp"
#include "core/search/search_kernels.hpp"

#include <vector>

namespace ssbhash {

// A sink with its memory. k = 0 collects a whole radius.
class Findings : public Sink {
  public:
    // by_id: codes will be offered in ascending order of id.
    Findings(std::size_t k, std::size_t n_bytes, std::int32_t limit, bool by_id);
    Findings(const Findings &) = delete;
    Findings &operator=(const Findings &) = delete;

    // What was found, as offered; for k > 0 the k smallest, in any order unless by_id.
    std::vector<Neighbour> take();

  private:
    static void make_room(Sink &sink);
    void compact();
    void compact_by_id();

    std::vector<std::uint32_t> counts_;
    std::vector<Neighbour> found_;
};

// Ascending by (distance, id), from any order.
void sort_by_distance_id(std::vector<Neighbour> &found);

// Sort by distance by counting; stable, so that equal distances keep their order.
void sort_by_distance(std::vector<Neighbour> &found, std::size_t max_distance);

} // namespace ssbhash
