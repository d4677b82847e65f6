#include "core/training/rectified_product.hpp"
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/training/small_matrices.hpp"
#include "core/training/training_kernels.hpp"

namespace ssbhash {

void NonZeros::gather(const Strided &matrix, std::size_t m, std::size_t k) {
    if (matrix.column != 1) {
        transposed_.resize(m * k);
        transpose(matrix.data, matrix.column, k, m, transposed_.data(), k);
        gather({transposed_.data(), k, 1}, m, k);
        return;
    }
    const auto kernel = active_isa().training.list_nonzeros;
    m_ = m;
    k_ = k;
    const std::size_t n_chunks = (k + kSparseDepth - 1) / kSparseDepth;
    values_.resize(n_chunks * m * kSparseDepth);
    places_.resize(n_chunks * m * kSparseDepth);
    counts_.resize(n_chunks * m);
    for (std::size_t row = 0; row < m; ++row)
        for (std::size_t first = 0, list = row; first < k; first += kSparseDepth, list += m)
            counts_[list] =
                kernel(matrix.data + row * matrix.row + first, std::min(kSparseDepth, k - first),
                       values_.data() + list * kSparseDepth, places_.data() + list * kSparseDepth);
}

void NonZeros::multiply(const Panel &panel, float *out, std::size_t out_row) const {
    const auto kernel = active_isa().training.add_sparse;
    const std::size_t width = panel.width();
    panel.write(out, out_row, m_, m_, [&](float *to, std::size_t to_row) {
        for (std::size_t at = 0, list = 0; at < k_; at += kSparseDepth, list += m_)
            kernel({values_.data() + list * kSparseDepth, places_.data() + list * kSparseDepth,
                    counts_.data() + list},
                   panel.rows() + at * width, width, {to, to_row, m_, at == 0});
    });
}

void NonZeros::multiply(const Strided &right, std::size_t n, float *out,
                        std::size_t n_threads) const {
    const std::size_t n_panels = (n + kSparseColumns - 1) / kSparseColumns;
    parallel_for(n_panels, n_threads, [&](std::size_t task, const Check &) {
        thread_local Panel panel;
        panel.pack(right, k_, n, task * kSparseColumns, kSparseColumns);
        multiply(panel, out + panel.first(), n);
    });
}

} // namespace ssbhash
