#include "core/training/adam.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/for_rows.hpp"
#include "core/training/training_kernels.hpp"

namespace ssbhash {

namespace {

// Weights that are updated together.
constexpr std::size_t kPiece = 8192;

AdamRow row_at(const Adam &adam, std::size_t at) {
    float *average = adam.average ? adam.average + at : nullptr;
    return {adam.weight + at, adam.mean + at, adam.square + at, adam.eps, average, adam.share};
}

// Distance from row i to the next one, to prefetch it: rows are scattered over tens of megabytes.
std::ptrdiff_t ahead(const std::int64_t *rows, std::size_t i, bool has_next, std::size_t width) {
    return has_next ? (rows[i + 1] - rows[i]) * static_cast<std::ptrdiff_t>(width) : 0;
}

} // namespace

void catch_up(const Adam &adam, const Missed &missed, std::size_t n_threads) {
    const auto kernel = active_isa().training.catch_up;
    for_rows(missed.n, n_threads, [&](std::size_t i, bool has_next) {
        if (missed.step[i] == 0) // current
            return;
        kernel(row_at(adam, static_cast<std::size_t>(missed.rows[i]) * adam.width), adam.width,
               ahead(missed.rows, i, has_next, adam.width), missed.step[i], missed.mean_decay[i],
               missed.square_decay[i]);
    });
}

void step_rows(const Adam &adam, const RowGradient &gradient, float step, std::size_t n_threads) {
    const auto kernel = active_isa().training.step;
    for_rows(gradient.n, n_threads, [&](std::size_t i, bool has_next) {
        kernel(row_at(adam, static_cast<std::size_t>(gradient.rows[i]) * adam.width),
               gradient.gradient + i * adam.width, adam.width,
               ahead(gradient.rows, i, has_next, adam.width), step);
    });
}

void step_all(const Adam &adam, const std::vector<const float *> &gradients,
              const std::vector<std::size_t> &sizes, float step, std::size_t n_threads) {
    const auto kernel = active_isa().training.step;
    std::size_t first = 0;
    for (std::size_t part = 0; part < gradients.size(); first += sizes[part++]) {
        const std::size_t n_pieces = (sizes[part] + kPiece - 1) / kPiece;
        parallel_for(n_pieces, n_threads, [&](std::size_t piece, const Check &) {
            const std::size_t from = piece * kPiece;
            kernel(row_at(adam, first + from), gradients[part] + from,
                   std::min(kPiece, sizes[part] - from), 0, step);
        });
    }
}

} // namespace ssbhash
