// Matrix products for the layers of small networks.
#pragma once

#include "core/base/aligned.hpp"
#include "core/training/small_matrices.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ssbhash {

// Element (i, j) of a matrix lies at i * row + j * column.
struct Strided {
    const float *data;
    std::size_t row, column;
};

// A product reads its left side to a multiple of so many rows; values beyond do not matter.
constexpr std::size_t kRowsBeyond = 12;
// Rows of a result whose sums stay in the first-level cache.
constexpr std::size_t kProductRows = 96;

// out [m, n] = left [m, k] right [k, n]; right's rows or columns lie together.
void product(const Strided &left, const Strided &right, std::size_t m, std::size_t k, std::size_t n,
             float *out, std::size_t n_threads);

// Some columns of a right side [k, n], k >= 1, packed to be multiplied from the left.
class Panel {
  public:
    static constexpr std::size_t kColumns = 32;

    // Columns first ... first + n_columns of right [k, n], as far as they exist; its row or its
    // column step is 1.
    void pack(const Strided &right, std::size_t k, std::size_t n, std::size_t first,
              std::size_t n_columns = kColumns);

    // out [n_rows, n_columns], rows so far apart, = left times the columns, for at most
    // kProductRows rows.
    void multiply(const Strided &left, std::size_t n_rows, float *out, std::size_t out_row) const;

    // For kernels that write whole registers and n_summed >= n_rows rows: sum(to, to_row) with
    // `out` where that fits it, else with memory from which n_rows rows are copied to it.
    template <typename Sum>
    void write(float *out, std::size_t out_row, std::size_t n_rows, std::size_t n_summed,
               const Sum &sum) const {
        if (n_summed == n_rows && n_columns_ == width_)
            return sum(out, out_row);
        thread_local std::vector<float, AlignedAllocator<float>> scratch;
        scratch.resize(n_summed * width_);
        sum(scratch.data(), width_);
        for (std::size_t i = 0; i < n_rows; ++i)
            copy_short(scratch.data() + i * width_, n_columns_, out + i * out_row);
    }

    std::size_t first() const { return first_; }
    std::size_t n_columns() const { return n_columns_; }
    const float *rows() const { return rows_.data(); } // [k, width], zeros beyond n_columns
    std::size_t width() const { return width_; }

  private:
    std::vector<float, AlignedAllocator<float>> rows_;
    std::size_t k_ = 0, first_ = 0, n_columns_ = 0, width_ = 0;
};

} // namespace ssbhash
