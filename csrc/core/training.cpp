#include "core/training.hpp"
#include "core/dispatch.hpp"
#include "core/training_kernels.hpp"

#include <algorithm>
#include <string_view>

namespace ssbhash {

namespace baseline {
extern const TrainingKernels training_kernels;
}
#ifdef SSBHASH_HAVE_TRAINING_AVX2
namespace avx2 {
extern const TrainingKernels training_kernels;
}
#endif

const TrainingKernels &active_training_kernels() {
#ifdef SSBHASH_HAVE_TRAINING_AVX2
    // Every wider instruction set runs these too.
    static const bool has_avx2 = active_kernels().name != std::string_view("baseline") &&
                                 __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx2)
        return avx2::training_kernels;
#endif
    return baseline::training_kernels;
}

namespace {

constexpr std::size_t kTaskRows = 64;
constexpr std::size_t kLineFloats = 16;

// Rows lie anywhere in tens of megabytes: fetch the next one meanwhile.
void prefetch(const AdamRows &adam, std::int64_t row) {
    const auto first = static_cast<std::size_t>(row) * adam.width;
    for (std::size_t i = first; i < first + adam.width; i += kLineFloats) {
        __builtin_prefetch(adam.weight + i, 1);
        __builtin_prefetch(adam.mean + i, 1);
        __builtin_prefetch(adam.square + i, 1);
    }
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
    const auto kernel = active_training_kernels().catch_up;
    for_each_row(missed.n, n_threads, [&](std::size_t i, bool has_next) {
        if (has_next)
            prefetch(adam, missed.rows[i + 1]);
        const auto at = static_cast<std::size_t>(missed.rows[i]) * adam.width;
        if (missed.step[i] != 0)
            kernel(adam.weight + at, adam.mean + at, adam.square + at, adam.width, missed.step[i],
                   missed.mean_decay[i], missed.square_decay[i], eps);
    });
}

void adam_step(const AdamRows &adam, const std::int64_t *rows, std::size_t n, const float *grad,
               float step, float eps, std::size_t n_threads) {
    const auto kernel = active_training_kernels().step;
    for_each_row(n, n_threads, [&](std::size_t i, bool has_next) {
        if (has_next)
            prefetch(adam, rows[i + 1]);
        const auto at = static_cast<std::size_t>(rows[i]) * adam.width;
        kernel(adam.weight + at, adam.mean + at, adam.square + at, grad + i * adam.width,
               adam.width, step, eps);
    });
}

void sparse_product(const SparseRows &rows, const float *weight, std::size_t width, float *out,
                    std::size_t n_threads) {
    const auto add_scaled = active_training_kernels().add_scaled;
    for_each_row(rows.n_rows, n_threads, [&](std::size_t i, bool) {
        const auto first = static_cast<std::size_t>(rows.starts[i]);
        const auto last =
            i + 1 < rows.n_rows ? static_cast<std::size_t>(rows.starts[i + 1]) : rows.n_values;
        std::fill_n(out + i * width, width, 0.0f);
        for (std::size_t at = first; at < last; ++at)
            add_scaled(out + i * width, weight + static_cast<std::size_t>(rows.columns[at]) * width,
                       rows.values[at], width);
    });
}

void exp_rows(float *x, const float *bias, std::size_t n, std::size_t width, float *top, float *sum,
              std::size_t n_threads) {
    const auto kernel = active_training_kernels().exp_row;
    for_each_row(n, n_threads, [&](std::size_t i, bool) {
        top[i] = kernel(x + i * width, bias, width, sum + i);
    });
}

} // namespace ssbhash
