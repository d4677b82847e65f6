// Multi-index hashing (Norouzi, Punjani & Fleet 2012): tables of the rows by parts of their bits.
//
// The bits are divided among m tables. A table lists, for each value of its part (a key), the
// rows that have it, and their codes again, so that a list is scanned where it lies. A code at
// distance d from a query differs in at most d bits, so if the lists of all keys within r_t of
// the query's own have been read in each table t, every code closer than sum (r_t + 1) was seen.
#pragma once

#include "core/base/codes.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

constexpr std::size_t kMaxTables = 16;
constexpr std::size_t kMaxKeyBits = 24;

// Which bits of a code make the key of each table: bits are dealt out in runs, as evenly as may be.
// Of a longer run than `most_width` the first bits are the key: codes equal in a run are equal
// there, so nothing is missed.
class Parts {
  public:
    Parts(std::size_t n_bits, std::size_t n_tables, std::size_t most_width = kMaxKeyBits);

    std::size_t n_tables() const { return widths_.size(); }
    std::size_t width(std::size_t table) const { return widths_[table]; }

    // Linear: the key of a ^ b is the xor of their keys.
    std::uint32_t key(std::size_t table, const std::uint8_t *code) const {
        std::uint64_t window = 0; // the at most 5 bytes that hold the part
        for (std::size_t i = 0; i < n_windows_[table]; ++i)
            window |= std::uint64_t{code[bytes_[table] + i]} << (8 * i);
        return static_cast<std::uint32_t>(window >> shifts_[table]) & masks_[table];
    }

  private:
    std::vector<std::size_t> widths_, bytes_, n_windows_, shifts_;
    std::vector<std::uint32_t> masks_;
};

// One table, wherever its arrays lie.
struct Table {
    const std::uint32_t *starts; // [2^width + 1]: the list of key i is [starts[i], starts[i + 1])
    const std::uint32_t *rows;   // [n] by (key, row)
    const std::uint8_t *codes;   // [n][n_bytes]: the code of each of `rows`
};

// How many tables serve n codes best: lists of some hundred codes, keys of at most kMaxKeyBits.
std::size_t tables_for(std::size_t n, std::size_t n_bits);

// Fill the arrays of one table.
void build_table(const Codes &codes, const Parts &parts, std::size_t table, std::uint32_t *starts,
                 std::uint32_t *rows, std::uint8_t *copies);

// All numbers of `width` bits, by the count of their ones; first[r] is where those with r begin.
struct Masks {
    std::vector<std::uint32_t> masks;
    std::vector<std::size_t> first; // [width + 2]
};
const Masks &masks_of(std::size_t width);

} // namespace ssbhash
