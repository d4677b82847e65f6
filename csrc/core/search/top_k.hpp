// The k smallest of a query, by counting: no heaps.
#pragma once

#include "core/base/codes.hpp"
#include "core/search/search_kernels.hpp"

#include <limits>
#include <vector>

namespace ssbhash {

// Stands for a neighbour that does not exist: fewer than k were found.
constexpr Neighbour kMissing{std::numeric_limits<std::int32_t>::max(), -1};

// A sink for the k >= 1 smallest, with its memory.
class Nearest : public Sink {
  public:
    // by_id: codes will be offered in ascending order of id.
    Nearest(std::size_t k, std::size_t n_bytes, bool by_id);
    Nearest(const Nearest &) = delete;
    Nearest &operator=(const Nearest &) = delete;

    // The k smallest, or fewer; in ascending order of id if they were offered so.
    std::vector<Neighbour> take();

  private:
    static void compact(Sink &sink);
    void drop_surplus();
    void drop_surplus_by_id();

    std::vector<std::uint32_t> counts_;
    std::vector<Neighbour> found_;
};

// Ascending by (distance, id), from any order.
void sort_by_distance_id(std::vector<Neighbour> &found);

// Sort by distance by counting; stable, so that equal distances keep their order.
void sort_by_distance(std::vector<Neighbour> &found, std::size_t max_distance);

// Results of several parts of a database become one: write the k smallest (distance, id) of
// `found` in ascending order, kMissing where there are fewer. by_id: `found` is in ascending
// order of id. Distances are at most max_distance.
void write_smallest(std::vector<Neighbour> &found, bool by_id, std::size_t max_distance,
                    std::size_t k, std::int32_t *distances, std::int64_t *ids);

} // namespace ssbhash
