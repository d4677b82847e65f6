#include "core/product.hpp"
#include "core/aligned.hpp"
#include "core/threads.hpp"
#include "core/training_kernels.hpp"

#include <algorithm>
#include <vector>

namespace ssbhash {

namespace {

// Columns of a panel of the right side; rows of it that stay in the first-level cache; rows
// of the result whose sums do.
constexpr std::size_t kColumns = 32, kDepth = 128, kRows = 96;

using Memory = std::vector<float, AlignedAllocator<float>>;

// Rows first ... first + n of a panel, zeros from column `left` to `width`.
void pack(const Strided &right, std::size_t first, std::size_t n, std::size_t left,
          std::size_t width, float *panel) {
    const float *from = right.data + first * right.row;
    for (std::size_t k = 0; k < n && right.column == 1; ++k)
        std::copy_n(from + k * right.row, left, panel + k * width);
    for (std::size_t j = 0; j < left && right.column != 1; ++j)
        for (std::size_t k = 0; k < n; ++k)
            panel[k * width + j] = from[k * right.row + j * right.column];
    for (std::size_t k = 0; k < n && left < width; ++k)
        std::fill(panel + k * width + left, panel + (k + 1) * width, 0.0f);
}

} // namespace

void product(const Strided &left, const Strided &right, std::size_t m, std::size_t k, std::size_t n,
             float *out, std::size_t n_threads) {
    const auto add_product = active_training_kernels().add_product;
    const std::size_t n_panels = (n + kColumns - 1) / kColumns;
    parallel_for(n_panels, n_threads, [&](std::size_t task, const Check &) {
        thread_local Memory panel, sums;
        const std::size_t first = task * kColumns, n_here = std::min(kColumns, n - first);
        const std::size_t width = (n_here + kBitBlock - 1) / kBitBlock * kBitBlock;
        panel.resize(k * width);
        sums.resize((kRows + kRowsBeyond) * width);
        for (std::size_t at = 0; at < k; at += kDepth)
            pack({right.data + first * right.column, right.row, right.column}, at,
                 std::min(kDepth, k - at), n_here, width, panel.data() + at * width);
        for (std::size_t row = 0; row < m; row += kRows) {
            const std::size_t n_rows = std::min(kRows, m - row);
            std::fill_n(sums.data(), (n_rows + kRowsBeyond) * width, 0.0f);
            for (std::size_t at = 0; at < k; at += kDepth)
                add_product(left.data + row * left.row + at * left.column, left.row, left.column,
                            panel.data() + at * width, width, std::min(kDepth, k - at), sums.data(),
                            n_rows);
            for (std::size_t i = 0; i < n_rows; ++i)
                std::copy_n(sums.data() + i * width, n_here, out + (row + i) * n + first);
        }
    });
}

} // namespace ssbhash
