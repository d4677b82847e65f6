// Codes grouped around centres. In this order each block is a shell of a ball, which a query can
// skip as a whole by the triangle inequality.
#pragma once

#include "core/base/aligned.hpp"
#include "core/base/codes.hpp"
#include "core/base/threads.hpp"
#include "core/search/search_kernels.hpp"

#include <memory>
#include <vector>

namespace ssbhash {

// Bounds on a block of positions: the distances of its codes to one centre.
struct Ball {
    std::uint32_t centre;
    std::uint32_t first_id; // the smallest id of the block
    std::int16_t nearest, farthest;

    // Whether the block may hold a code closer than `limit`, for a query at `distance` from the
    // centre.
    bool can_hold(std::int32_t distance, std::int32_t limit) const {
        return distance - farthest < limit && nearest - distance < limit;
    }
};

struct Database;

class Balls {
  public:
    // Returns null if the order would not pay.
    static std::unique_ptr<const Balls> group(const Codes &codes, const SearchKernels &kernels,
                                              const Schedule &schedule);

    // The id of each position in the order.
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
    Scratch centres_;                // grouped by coarse centre
    Scratch coarse_;                 // a few of the centres
    std::vector<std::size_t> owned_; // [n_coarse + 1] the first centre of each coarse one
    std::vector<std::uint32_t> first_, order_;
    std::vector<Ball> balls_;
};

// Decides which queries of a tile skip which blocks.
class Bounds {
  public:
    Bounds(const Balls &balls, const Database &database, const Codes &queries,
           const SearchKernels &kernels);

    // Returns for each query one more than the k-th distance among `n` allowed codes around the
    // centre that is nearest to it; one more than any distance if there are fewer than k.
    std::vector<std::int32_t> first_limits(std::size_t k, std::size_t n);

    // Chooses the slots (slot i is query i) that may find something in a block.
    void choose(std::size_t block, Tile &tile);

    std::int32_t distance(std::size_t query, std::size_t centre) const {
        return distances_[centre * queries_.n + query];
    }

  private:
    std::vector<std::uint32_t> nearest_centres() const;
    void take_sample(std::size_t begin, std::size_t n);

    const Balls &balls_;
    const Database &database_;
    Codes queries_;
    const SearchKernels &kernels_;
    std::vector<std::int16_t> distances_; // [n_centres][n_queries]
    std::vector<std::int16_t> limits_;    // when last read: never lower than they are now
    std::vector<std::int16_t> passed_;
    std::vector<std::uint32_t> ids_; // of the sample
    Scratch rows_;                   // its codes
};

// Copies rows ids[0] ... ids[n - 1].
void gather(const Codes &codes, const std::uint32_t *ids, std::size_t n, std::uint8_t *rows);

} // namespace ssbhash
