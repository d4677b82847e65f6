// The k smallest of a query, by counting distances; there are no heaps.
#pragma once

#include "core/base/codes.hpp"
#include "core/search/search_kernels.hpp"

#include <limits>
#include <vector>

namespace ssbhash {

// Fills up rows of fewer than k neighbours.
constexpr Neighbour kMissing{std::numeric_limits<std::int32_t>::max(), -1};

// A sink for the k >= 1 smallest. It owns its memory.
class Nearest : public Sink {
  public:
    // by_id: whether codes will be offered in ascending order of id.
    Nearest(std::size_t k, std::size_t n_bytes, bool by_id);
    Nearest(const Nearest &) = delete;
    Nearest &operator=(const Nearest &) = delete;

    // Returns the k smallest, or fewer. They are in ascending order of id if offered in that order.
    std::vector<Neighbour> take();

  private:
    static void compact(Sink &sink);
    void drop_surplus();
    void drop_surplus_by_id();

    std::vector<std::uint32_t> counts_;
    std::vector<Neighbour> found_;
};

// Sorts by (distance, id), from any order.
void sort_by_distance_id(std::vector<Neighbour> &found);

// Sorts by distance, by counting. It is stable: equal distances keep their order.
void sort_by_distance(std::vector<Neighbour> &found, std::size_t max_distance);

// Merges results of several parts of a database: writes the k smallest (distance, id) of `found` in
// ascending order, and kMissing if there are fewer. by_id tells whether `found` is in ascending
// order of id. Distances are at most max_distance.
void write_smallest(std::vector<Neighbour> &found, bool by_id, std::size_t max_distance,
                    std::size_t k, std::int32_t *distances, std::int64_t *ids);

} // namespace ssbhash
