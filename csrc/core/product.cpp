#include "core/product.hpp"
#include "core/threads.hpp"
#include "core/training_kernels.hpp"

namespace ssbhash {

namespace {

// Rows of a panel that stay in the first-level cache.
constexpr std::size_t kDepth = 128;

} // namespace

void Panel::pack(const Strided &right, std::size_t k, std::size_t n, std::size_t first) {
    k_ = k;
    first_ = first;
    n_columns_ = std::min(kColumns, n - first);
    width_ = (n_columns_ + kBitBlock - 1) / kBitBlock * kBitBlock;
    rows_.resize(k * width_);
    const float *from = right.data + first * right.column;
    if (right.column == 1) {
        for (std::size_t i = 0; i < k; ++i)
            std::copy_n(from + i * right.row, n_columns_, rows_.data() + i * width_);
    } else {
        for (std::size_t at = 0; at < k; at += kDepth)
            for (std::size_t j = 0; j < n_columns_; ++j)
                for (std::size_t i = at; i < std::min(k, at + kDepth); ++i)
                    rows_[i * width_ + j] = from[i * right.row + j * right.column];
    }
    for (std::size_t i = 0; i < k && n_columns_ < width_; ++i)
        std::fill_n(rows_.data() + i * width_ + n_columns_, width_ - n_columns_, 0.0f);
}

const float *Panel::multiply(const Strided &left, std::size_t n_rows) const {
    thread_local std::vector<float, AlignedAllocator<float>> sums;
    sums.resize((kProductRows + kRowsBeyond) * kColumns);
    std::fill_n(sums.data(), (n_rows + kRowsBeyond) * width_, 0.0f);
    for (std::size_t at = 0; at < k_; at += kDepth)
        active_training_kernels().add_product(left.data + at * left.column, left.row, left.column,
                                              rows_.data() + at * width_, width_,
                                              std::min(kDepth, k_ - at), sums.data(), n_rows);
    return sums.data();
}

void product(const Strided &left, const Strided &right, std::size_t m, std::size_t k, std::size_t n,
             float *out, std::size_t n_threads) {
    const std::size_t n_panels = (n + Panel::kColumns - 1) / Panel::kColumns;
    parallel_for(n_panels, n_threads, [&](std::size_t task, const Check &) {
        thread_local Panel panel;
        panel.pack(right, k, n, task * Panel::kColumns);
        for (std::size_t row = 0; row < m; row += kProductRows) {
            const std::size_t n_rows = std::min(kProductRows, m - row);
            const float *sums =
                panel.multiply({left.data + row * left.row, left.row, left.column}, n_rows);
            for (std::size_t i = 0; i < n_rows; ++i)
                std::copy_n(sums + i * panel.width(), panel.n_columns(),
                            out + (row + i) * n + panel.first());
        }
    });
}

} // namespace ssbhash
