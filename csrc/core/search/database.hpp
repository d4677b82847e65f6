// The codes to be searched: all rows or some, with prepared planes or without.
#pragma once

#include "core/base/aligned.hpp"
#include "core/base/codes.hpp"
#include "core/search/balls.hpp"
#include "core/search/search_kernels.hpp"

#include <memory>

namespace ssbhash {

// The bit planes of all full blocks, kept so that searches need not transpose; in an
// order of their own where that pays.
class Planes {
  public:
    Planes(const Codes &codes, const SearchKernels &kernels, std::size_t n_threads);

    std::size_t n_blocks() const { return n_blocks_; }
    const void *block(std::size_t i) const { return data_.data() + i * block_bytes_; }
    const Balls *balls() const { return balls_.get(); } // null: in order of id
    std::size_t n_bytes_total() const {
        return data_.size() + (balls_ ? balls_->n_bytes_total() : 0);
    }

  private:
    std::unique_ptr<const Balls> balls_;
    std::size_t block_bytes_;
    std::size_t n_blocks_;
    Scratch data_;
};

struct Database {
    Codes codes;
    const std::int64_t *ids = nullptr; // ascending: only these rows are searched
    std::size_t n_ids = 0;
    const Planes *planes = nullptr; // of all rows

    std::size_t n() const { return ids ? n_ids : codes.n; }
    std::size_t id(std::size_t i) const { return ids ? static_cast<std::size_t>(ids[i]) : i; }
    const std::uint8_t *row(std::size_t i) const { return codes.row(id(i)); }

    // Not null: rows and ids are in its order, for id() and row() do not hold then.
    const Balls *balls() const { return planes && !ids ? planes->balls() : nullptr; }
};

// Reads a database in blocks and runs; owns the scratch for one at a time.
class BlockReader {
  public:
    BlockReader(const Database &database, const SearchKernels &kernels);

    // Rows [first, first + n), as they lie in memory where that is possible.
    Block rows(std::size_t first, std::size_t n);

    // The block that starts at row `first`, a multiple of block_codes, cut off at
    // row `end`, with its planes.
    Block with_planes(std::size_t first, std::size_t end);

    // Begin to fetch what with_planes(first, end) will read.
    void prefetch(std::size_t first, std::size_t end) const;

  private:
    const void *planes_of(const Block &block, std::size_t first);

    const Database &database_;
    const SearchKernels &kernels_;
    Scratch rows_, planes_;
};

} // namespace ssbhash
