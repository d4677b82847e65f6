// Postings: multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012).
//
// The bits of a code are divided among m tables. The bits of one table are its key:
//
//     code    0110 1011 0001        m = 3 tables
//     key t   0110 | 1011 | 0001
//
// A table lists for each key the rows that have it, and copies of their codes, so that a list is
// scanned in order. Suppose that in each table t all lists were read whose key differs from the
// query's in at most r_t bits. A code that was not read differs in at least r_t + 1 bits in every
// table t. So every code closer than sum (r_t + 1) was read.
#pragma once

#include "core/base/codes.hpp"
#include "core/base/threads.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ssbhash {

constexpr std::size_t kMaxTables = 16;
constexpr std::size_t kMaxKeyBits = 24;
constexpr std::size_t kRowsACheck = 1 << 16; // rows that are built between two checks

// Which bits of a code make the key of each table: runs of bits, as even as possible. If a run is
// longer than `most_width`, its first bits are the key. Codes that are equal in the run have equal
// keys, so none is missed.
class Parts {
  public:
    Parts(std::size_t n_bytes, std::size_t n_tables, std::size_t most_width = kMaxKeyBits);

    std::size_t n_tables() const { return widths_.size(); }
    std::size_t width(std::size_t table) const { return widths_[table]; }

    // The key is linear: that of a ^ b is the xor of the keys of a and b.
    std::uint32_t key(std::size_t table, const std::uint8_t *code) const {
        std::uint64_t window = 0; // 8 bytes that hold the part, or the whole code
        if (n_bytes_ >= 8)
            std::memcpy(&window, code + windows_[table], 8);
        else
            std::memcpy(&window, code, n_bytes_);
        return static_cast<std::uint32_t>(window >> shifts_[table]) & masks_[table];
    }

  private:
    std::size_t n_bytes_;
    std::vector<std::size_t> widths_, windows_, shifts_;
    std::vector<std::uint32_t> masks_;
};

// Bytes that hold the number of one of n rows, little-endian.
constexpr std::size_t row_bytes(std::size_t n) { return n <= std::size_t{1} << 24 ? 3 : 4; }

inline std::size_t row_at(const std::uint8_t *rows, std::size_t place, std::size_t n_row_bytes) {
    const std::uint8_t *at = rows + place * n_row_bytes;
    const std::size_t low = at[0] | std::size_t{at[1]} << 8 | std::size_t{at[2]} << 16;
    return n_row_bytes == 3 ? low : low | std::size_t{at[3]} << 24;
}

// One table; its arrays belong to the caller.
struct Table {
    const std::uint32_t *starts; // [2^width + 1]: the list of key i is [starts[i], starts[i + 1])
    const std::uint8_t *rows;    // [n][row_bytes(n)] sorted by (key, row)
    const std::uint8_t *codes;   // [n][n_bytes]: the code of each of `rows`; null if compact
};

// Returns the number of tables that serves n codes best: lists of about a hundred codes, keys of
// at most kMaxKeyBits.
std::size_t tables_for(std::size_t n, std::size_t n_bits);

// Fill the arrays of one table; without `copies` if they are null.
void build_table(const Codes &codes, const Parts &parts, std::size_t table, std::uint32_t *starts,
                 std::uint8_t *rows, std::uint8_t *copies, const Check &check);

// All numbers of `width` bits, sorted by their number of ones; those with r ones begin at first[r].
struct Masks {
    std::vector<std::uint32_t> masks;
    std::vector<std::size_t> first; // [width + 2]
};
const Masks &masks_of(std::size_t width);

} // namespace ssbhash
