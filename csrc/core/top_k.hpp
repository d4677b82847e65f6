// What was found for each query, and its order: counting, no heaps.
#pragma once

#include "core/codes.hpp"
#include "core/kernels.hpp"

#include <vector>

namespace ssbhash {

// A sink with its memory. k = 0 collects a whole radius.
class Findings : public Sink {
  public:
    Findings(std::size_t k, std::size_t n_bytes, std::int32_t limit);
    Findings(const Findings &) = delete;
    Findings &operator=(const Findings &) = delete;

    // What was found, in order of id; for k > 0 the k smallest.
    std::vector<Neighbour> take();

  private:
    static void make_room(Sink &sink);
    void compact();

    std::vector<std::uint32_t> counts_;
    std::vector<Neighbour> found_;
};

// Sort by distance by counting; stable, so that equal distances keep their order.
void sort_by_distance(std::vector<Neighbour> &found, std::size_t max_distance);

} // namespace ssbhash
