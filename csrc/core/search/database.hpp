// The codes to be searched: all rows or some of them, with or without prepared planes.
#pragma once

#include "core/base/aligned.hpp"
#include "core/base/codes.hpp"
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/search/balls.hpp"
#include "core/search/search_kernels.hpp"

#include <memory>
#include <vector>

namespace ssbhash {

// The bit planes of all full blocks, so that searches need not transpose. The codes are put into an
// order of their own if that pays.
class Planes {
  public:
    Planes(const Codes &codes, const InstructionSet &isa, const Schedule &schedule);

    // The kernels that the planes are laid out for.
    const InstructionSet &isa() const { return isa_; }
    bool fits(const Codes &codes) const { return codes.n == n_ && codes.n_bytes == n_bytes_; }
    const void *block(std::size_t i) const { return data_.data() + i * block_bytes_; }
    const Balls *balls() const { return balls_.get(); } // null: codes are in order of id
    std::size_t n_bytes_total() const {
        return data_.size() + (balls_ ? balls_->n_bytes_total() : 0);
    }

  private:
    const InstructionSet &isa_;
    std::size_t n_, n_bytes_;
    std::unique_ptr<const Balls> balls_;
    std::size_t block_bytes_;
    Scratch data_;
};

// The codes to be searched. There are two kinds of filter. The rows of `ids` are gathered, so that
// the cost falls with their number. `allowed` keeps rows, planes and order as they are, and is read
// for codes that were hit.
struct Database {
    Codes codes;
    const std::int64_t *ids = nullptr; // ascending; only these rows are searched
    std::size_t n_ids = 0;
    const std::uint8_t *allowed = nullptr; // bit i % 8 of byte i / 8: row i is searched
    const Planes *planes = nullptr;        // of all rows

    std::size_t n() const { return ids ? n_ids : codes.n; }
    std::size_t id(std::size_t i) const { return ids ? static_cast<std::size_t>(ids[i]) : i; }
    const std::uint8_t *row(std::size_t i) const { return codes.row(id(i)); }
    bool is_allowed(std::size_t i) const {
        return !allowed || (allowed[id(i) / 8] >> (id(i) % 8) & 1);
    }

    // With fewer queries, scanning by row is faster than tables (measured at 64 and 256 bits).
    std::size_t min_table_queries() const {
        if (!planes || ids)
            return 6;
        const bool skips_most = planes->balls() && planes->balls()->share_skipped() > 0.5;
        return skips_most ? 1 : 3;
    }

    // If not null, rows and ids are in its order, and id() and row() must not be used.
    const Balls *balls() const { return planes && !ids ? planes->balls() : nullptr; }
};

// How many of n rows are allowed; bits from n on are zero.
std::size_t count_allowed(const std::uint8_t *allowed, std::size_t n);

// The memory of a filter that was converted to the other kind.
struct FilterMemory {
    std::vector<std::int64_t> ids;
    std::vector<std::uint8_t> allowed;
};

// Converts a filter to the kind that is faster for n_queries. Results do not depend on it.
void choose_filter(Database &database, std::size_t n_queries, FilterMemory &memory);

// Reads a database in blocks and runs. It owns the scratch memory for one of them at a time.
class BlockReader {
  public:
    BlockReader(const Database &database, const SearchKernels &kernels);

    // Returns rows [first, first + n), in place if possible, else gathered.
    Block rows(std::size_t first, std::size_t n);

    // Returns the block that starts at row `first`, a multiple of block_codes, with its planes. It
    // ends at row `end` at the latest.
    Block with_planes(std::size_t first, std::size_t end);

    // Prefetches what with_planes(first, end) will read.
    void prefetch(std::size_t first, std::size_t end) const;

  private:
    Block rows_of(std::size_t first, std::size_t n);
    const void *planes_of(const Block &block, std::size_t first);

    const Database &database_;
    const SearchKernels &kernels_;
    Scratch rows_, planes_;
};

} // namespace ssbhash
