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
    // Wide strips are read faster: the CPU fetches the rest of a row ahead.
    constexpr std::size_t n_least = 64;
    const std::size_t share =
        (layer.width / std::max<std::size_t>(n_threads, 1)) / n_least * n_least;
    const std::size_t n_columns = std::clamp(share + n_least, n_least, kNormColumns);
    parallel_for((layer.width + n_columns - 1) / n_columns, n_threads,
                 [&](std::size_t task, const Check &) {
                     const std::size_t first = task * n_columns;
                     kernel(layer, first, std::min(n_columns, layer.width - first));
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
