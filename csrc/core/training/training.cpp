#include "core/training/training.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/training_kernels.hpp"

#include <algorithm>
#include <vector>

namespace ssbhash {

namespace {

constexpr std::size_t kTaskRows = 64;
// Parameters that are updated together.
constexpr std::size_t kPiece = 8192;

// Rows lie anywhere in tens of megabytes: how far it is to the next one.
std::ptrdiff_t ahead(const std::int64_t *rows, std::size_t i, bool has_next, std::size_t width) {
    return has_next ? (rows[i + 1] - rows[i]) * static_cast<std::ptrdiff_t>(width) : 0;
}

template <typename Row>
void for_each_row(std::size_t n, std::size_t n_threads, const Row &row) {
    const auto task = [&](std::size_t index, const Check &) {
        const std::size_t end = std::min(n, (index + 1) * kTaskRows);
        for (std::size_t i = index * kTaskRows; i < end; ++i)
            row(i, i + 1 < end);
    };
    parallel_for((n + kTaskRows - 1) / kTaskRows, n_threads, task);
}

} // namespace

void catch_up(const AdamRows &adam, const Missed &missed, float eps, std::size_t n_threads) {
    const auto kernel = active_isa().training.catch_up;
    const auto scale = [&](float *row, const float *factors, std::size_t i) {
        for (std::size_t j = 0; factors != nullptr && j < adam.width; ++j)
            row[j] *= factors[i];
    };
    for_each_row(missed.n, n_threads, [&](std::size_t i, bool has_next) {
        if (missed.step[i] == 0)
            return;
        const auto at = static_cast<std::size_t>(missed.rows[i]) * adam.width;
        kernel(adam.weight + at, adam.mean + at, adam.square + at, adam.width,
               ahead(missed.rows, i, has_next, adam.width), missed.step[i], eps);
        scale(adam.mean + at, missed.mean_decay, i);
        scale(adam.square + at, missed.square_decay, i);
    });
}

namespace {

// to [width] = row i of `rows` times matrix.
void sum_row(const SparseRows &rows, std::size_t i, const float *matrix, std::size_t width,
             float *to) {
    const std::size_t first = rows.begin(i);
    active_isa().training.sum_rows(rows.columns + first, rows.values + first, rows.end(i) - first,
                                   matrix, width, to);
}

} // namespace

void adam_step(const AdamRows &adam, const Missed &missed, const SparseRows &sums,
               const float *matrix, float step, float eps, std::size_t n_threads) {
    const auto kernel = active_isa().training.step;
    for_each_row(sums.n_rows, n_threads, [&](std::size_t i, bool has_next) {
        thread_local std::vector<float> grad;
        grad.resize(adam.width);
        sum_row(sums, i, matrix, adam.width, grad.data());
        const auto at = static_cast<std::size_t>(missed.rows[i]) * adam.width;
        kernel(adam.weight + at, adam.mean + at, adam.square + at, grad.data(), adam.width,
               ahead(missed.rows, i, has_next, adam.width), missed.mean_decay[i],
               missed.square_decay[i], step, eps);
    });
}

void adam_step(const AdamRows &adam, const std::vector<const float *> &grads,
               const std::vector<std::size_t> &sizes, float step, float eps,
               std::size_t n_threads) {
    const auto kernel = active_isa().training.step;
    std::size_t first = 0;
    for (std::size_t part = 0; part < grads.size(); first += sizes[part++]) {
        const std::size_t n_pieces = (sizes[part] + kPiece - 1) / kPiece;
        parallel_for(n_pieces, n_threads, [&](std::size_t piece, const Check &) {
            const std::size_t from = piece * kPiece, at = first + from;
            kernel(adam.weight + at, adam.mean + at, adam.square + at, grads[part] + from,
                   std::min(kPiece, sizes[part] - from), 0, 1, 1, step, eps);
        });
    }
}

void sparse_product(const SparseRows &rows, const float *weight, std::size_t width, float *out,
                    std::size_t n_threads) {
    for_each_row(rows.n_rows, n_threads,
                 [&](std::size_t i, bool) { sum_row(rows, i, weight, width, out + i * width); });
}

void exp_rows(float *x, const float *bias, std::size_t n, std::size_t width, float *top, float *sum,
              std::size_t n_threads) {
    const auto kernel = active_isa().training.exp_row;
    for_each_row(n, n_threads, [&](std::size_t i, bool) {
        top[i] = kernel(x + i * width, bias, width, sum + i);
    });
}

namespace {

template <typename Layer, typename Kernel>
void for_columns(const Layer &layer, std::size_t n_threads, Kernel kernel) {
    const std::size_t n_tasks = (layer.width + kNormColumns - 1) / kNormColumns;
    parallel_for(n_tasks, n_threads, [&](std::size_t task, const Check &) {
        const std::size_t first = task * kNormColumns;
        kernel(layer, first, std::min(kNormColumns, layer.width - first));
    });
}

} // namespace

void relu_norm(const ReluNorm &layer, std::size_t n_threads) {
    for_columns(layer, n_threads, active_isa().training.relu_norm);
}

void relu_norm_backward(const ReluNormGradient &layer, std::size_t n_threads) {
    for_columns(layer, n_threads, active_isa().training.relu_norm_backward);
}

} // namespace ssbhash
