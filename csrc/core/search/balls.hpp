// Codes grouped around centres: an order of the codes in which the blocks are balls that a
// query can skip whole, by the triangle inequality.
#pragma once

#include "core/base/aligned.hpp"
#include "core/base/codes.hpp"
#include "core/base/threads.hpp"
#include "core/search/search_kernels.hpp"

#include <memory>
#include <vector>

namespace ssbhash {

// What is known of a block of positions: the distances of its codes to one centre.
struct Ball {
    std::uint32_t centre;
    std::uint32_t first_id; // the smallest
    std::int16_t nearest, farthest;

    // Whether a code closer than `limit` is possible, for a query at `distance` from the centre.
    bool can_hold(std::int32_t distance, std::int32_t limit) const {
        return distance - farthest < limit && nearest - distance < limit;
    }
};

struct Database;

class Balls {
  public:
    // Null where the order would not pay.
    static std::unique_ptr<const Balls> group(const Codes &codes, const SearchKernels &kernels,
                                              const Schedule &schedule);

    // The id of each position.
    const std::uint32_t *order() const { return order_.data(); }
    const Ball &of_block(std::size_t i) const { return balls_[i]; }
    const Codes centres() const { return {centres_.data(), owned_.back(), n_bytes_}; }
    // The first position of the codes around a centre.
    std::size_t first(std::size_t centre) const { return first_[centre]; }
    std::size_t n_bytes_total() const;

  private:
    class Nearest;
    struct Place {
        std::size_t centre, distance;
    };

    Balls(const Codes &codes, const SearchKernels &kernels);
    Place place(const std::uint8_t *code, Nearest &nearest) const;
    void draw_centres(const Codes &codes, const SearchKernels &kernels);
    void sort(const Codes &codes, const SearchKernels &kernels, const Schedule &schedule);
    void bound(const Codes &codes, const SearchKernels &kernels, const Schedule &schedule);
    double share_expected(const Codes &codes, const SearchKernels &kernels) const;
    double share_skipped(const Codes &codes, const SearchKernels &kernels) const;

    std::size_t n_bytes_;
    Scratch centres_;                // those around one coarse centre side by side
    Scratch coarse_;                 // few of the centres
    std::vector<std::size_t> owned_; // [n_coarse + 1] the first centre of each
    std::vector<std::uint32_t> first_, order_;
    std::vector<Ball> balls_;
};

// The queries of a tile against balls.
class Bounds {
  public:
    Bounds(const Balls &balls, const Database &database, const Codes &queries,
           const SearchKernels &kernels);

    // One more than the k-th distance among `n` allowed codes around the centre next to a query;
    // one more than any distance where there are fewer than k.
    std::int32_t first_limit(std::size_t query, std::size_t k, std::size_t n);

    // Choose the slots (slot i is query i) that may find something in a block.
    void choose(std::size_t block, Tile &tile);

    std::int32_t distance(std::size_t query, std::size_t centre) const {
        return distances_[centre * queries_.n + query];
    }

  private:
    std::size_t nearest_centre(std::size_t query) const;
    void take_allowed(std::size_t begin, std::size_t n);

    const Balls &balls_;
    const Database &database_;
    Codes queries_;
    const SearchKernels &kernels_;
    std::vector<std::int16_t> distances_; // [n_centres][n_queries]
    std::vector<std::int16_t> limits_;    // as they were when last looked at: never too low
    std::vector<std::int16_t> passed_;
    std::vector<std::uint32_t> ids_;
    Scratch rows_;
};

// Copy rows ids[0], ... ids[n - 1].
void gather(const Codes &codes, const std::uint32_t *ids, std::size_t n, std::uint8_t *rows);

} // namespace ssbhash
