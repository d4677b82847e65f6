#include "core/training/layers.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/for_rows.hpp"
#include "core/training/training_kernels.hpp"

namespace ssbhash {

void sum_rows(const SparseRows &rows, const float *matrix, std::size_t width, float *out,
              std::size_t n_threads) {
    const auto kernel = active_isa().training.sum_rows;
    for_rows(rows.n_rows, n_threads, [&](std::size_t i, bool) {
        const std::size_t first = rows.begin(i);
        kernel(rows.columns + first, rows.values + first, rows.end(i) - first, matrix, width,
               out + i * width);
    });
}

namespace {

// Units that are dropped together.
constexpr std::size_t kPiece = 8192;

template <typename Layer, typename Kernel>
void for_columns(const Layer &layer, std::size_t n_threads, Kernel kernel) {
    const std::size_t n_tasks = (layer.width + kNormColumns - 1) / kNormColumns;
    parallel_for(n_tasks, n_threads, [&](std::size_t task, const Check &) {
        const std::size_t first = task * kNormColumns;
        kernel(layer, first, std::min(kNormColumns, layer.width - first));
    });
}

} // namespace

void dropped(const float *x, std::size_t n, const Dropout &dropout, float *out,
             std::size_t n_threads) {
    const auto kernel = active_isa().training.dropped;
    parallel_for((n + kPiece - 1) / kPiece, n_threads, [&](std::size_t piece, const Check &) {
        const std::size_t from = piece * kPiece;
        const Dropout here{dropout.bytes + from, dropout.threshold, dropout.scale};
        kernel(x + from, std::min(kPiece, n - from), here, out + from);
    });
}

void relu_norm(const ReluNorm &layer, std::size_t n_threads) {
    for_columns(layer, n_threads, active_isa().training.relu_norm);
}

void relu_norm_backward(const ReluNormGradient &layer, std::size_t n_threads) {
    for_columns(layer, n_threads, active_isa().training.relu_norm_backward);
}

} // namespace ssbhash
