#include "core/training/product.hpp"
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/training/small_matrices.hpp"
#include "core/training/training_kernels.hpp"

namespace ssbhash {

namespace {

static_assert(kRowsBeyond == kItemBlock && kProductRows % kItemBlock == 0);

// Rows of a panel that stay in the first-level cache.
constexpr std::size_t kDepth = 128;

} // namespace

void Panel::pack(const Strided &right, std::size_t k, std::size_t n, std::size_t first,
                 std::size_t n_columns) {
    k_ = k;
    first_ = first;
    n_columns_ = std::min(n_columns, n - first);
    width_ = (n_columns_ + kBitBlock - 1) / kBitBlock * kBitBlock;
    rows_.resize(k * width_);
    const float *from = right.data + first * right.column;
    if (right.column == 1)
        for (std::size_t i = 0; i < k; ++i)
            copy_short(from + i * right.row, n_columns_, rows_.data() + i * width_);
    else
        transpose(from, right.column, n_columns_, k, rows_.data(), width_);
    for (std::size_t i = 0; i < k && n_columns_ < width_; ++i)
        std::fill_n(rows_.data() + i * width_ + n_columns_, width_ - n_columns_, 0.0f);
}

void Panel::multiply(const Strided &left, std::size_t n_rows, float *out,
                     std::size_t out_row) const {
    const std::size_t n_summed = (n_rows + kRowsBeyond - 1) / kRowsBeyond * kRowsBeyond;
    write(out, out_row, n_rows, n_summed, [&](float *to, std::size_t to_row) {
        for (std::size_t at = 0; at < k_; at += kDepth)
            active_isa().training.add_product(
                {left.data + at * left.column, left.row, left.column, std::min(kDepth, k_ - at)},
                rows_.data() + at * width_, width_, {to, to_row, n_rows, at == 0});
    });
}

void product(const Strided &left, const Strided &right, std::size_t m, std::size_t k, std::size_t n,
             float *out, std::size_t n_threads) {
    const std::size_t n_panels = (n + Panel::kColumns - 1) / Panel::kColumns;
    parallel_for(n_panels, n_threads, [&](std::size_t task, const Check &) {
        thread_local Panel panel;
        panel.pack(right, k, n, task * Panel::kColumns);
        for (std::size_t row = 0; row < m; row += kProductRows) {
            const std::size_t n_rows = std::min(kProductRows, m - row);
            panel.multiply({left.data + row * left.row, left.row, left.column}, n_rows,
                           out + row * n + panel.first(), n);
        }
    });
}

} // namespace ssbhash
