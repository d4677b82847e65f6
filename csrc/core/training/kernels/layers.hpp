// Rows of a layer, Adam and normalisation. The compiler vectorises the plain loops.
#pragma once

#include "core/training/kernels/vectors.hpp"

namespace ssbhash::SSBHASH_ISA::training {
namespace {

constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f;

// mean / (sqrt(square) + eps). With AVX: the CPU's fast approximations of the root and the
// reciprocal, each with a Newton step. The relative error is about 2^-22. A square below 1e-36 is
// taken for 1e-36.
Floats direction(Floats mean, Floats square, float eps) {
#ifdef __AVX__
    square = larger(square, all(1e-36f));
    const Floats guess = _mm256_rsqrt_ps(square);
    const Floats inverse = guess * (1.5f - 0.5f * square * guess * guess);
    const Floats root = square * inverse + eps;
    const Floats reciprocal = _mm256_rcp_ps(root);
    return mean * (reciprocal * (2.0f - root * reciprocal));
#else
    Floats root;
    for (std::size_t i = 0; i < kLanes; ++i)
        root[i] = __builtin_sqrtf(square[i]);
    return mean / (root + eps);
#endif
}

// Calls update(i, n_lanes) for each vector in turn; the last may have fewer lanes. Meanwhile the
// memory `ahead` floats further on in each array is fetched into the cache.
template <typename Update, typename... Arrays>
void for_vectors(std::size_t n, std::ptrdiff_t ahead, const Update &update, Arrays... arrays) {
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        if (ahead != 0 && i % (2 * kLanes) == 0)
            (__builtin_prefetch(arrays + static_cast<std::ptrdiff_t>(i) + ahead, 1), ...);
        update(i, kLanes);
    }
    if (i < n)
        update(i, n - i);
}

void catch_up(const AdamRow &row, std::size_t n, std::ptrdiff_t ahead, float step, float mean_decay,
              float square_decay) {
    const auto update = [=](std::size_t i, std::size_t lanes) {
        const Floats m = load(row.mean + i, lanes), v = load(row.square + i, lanes);
        const Floats w = load(row.weight + i, lanes);
        store(row.weight + i, w - step * direction(m, v, row.eps), lanes);
        store(row.mean + i, mean_decay * m, lanes);
        store(row.square + i, square_decay * v, lanes);
    };
    for_vectors(n, ahead, update, row.weight, row.mean, row.square);
}

void step(const AdamRow &row, const float *grad, std::size_t n, std::ptrdiff_t ahead, float step) {
    const auto update = [=](std::size_t i, std::size_t lanes) {
        Floats m = load(row.mean + i, lanes), v = load(row.square + i, lanes);
        const Floats g = load(grad + i, lanes), w = load(row.weight + i, lanes);
        m += (1 - kBeta1) * (g - m);
        v += (1 - kBeta2) * (g * g - v);
        store(row.mean + i, m, lanes);
        store(row.square + i, v, lanes);
        store(row.weight + i, w - step * direction(m, v, row.eps), lanes);
    };
    for_vectors(n, ahead, update, row.weight, row.mean, row.square);
}

void add_scaled(float *__restrict sum, const float *__restrict row, float factor, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        sum[i] += factor * row[i];
}

// Sums N vectors of columns in registers. The next columns of each row are fetched into the cache.
template <std::size_t N>
void sum_strip(const std::int64_t *columns, const float *values, std::size_t n_rows,
               const float *matrix, std::size_t width, float *to) {
    Floats sums[N] = {};
    for (std::size_t at = 0; at < n_rows; ++at) {
        const float *row = matrix + static_cast<std::size_t>(columns[at]) * width;
        for (std::size_t v = 0; v < N; v += 2)
            __builtin_prefetch(row + (N + v) * kLanes);
#pragma GCC unroll 8
        for (std::size_t v = 0; v < N; ++v)
            sums[v] += values[at] * load(row + v * kLanes);
    }
#pragma GCC unroll 8
    for (std::size_t v = 0; v < N; ++v)
        store(to + v * kLanes, sums[v]);
}

void sum_rows(const std::int64_t *columns, const float *values, std::size_t n_rows,
              const float *matrix, std::size_t width, float *to) {
    std::size_t first = 0;
    for (; first + 8 * kLanes <= width; first += 8 * kLanes)
        sum_strip<8>(columns, values, n_rows, matrix + first, width, to + first);
    for (; first + kLanes <= width; first += kLanes)
        sum_strip<1>(columns, values, n_rows, matrix + first, width, to + first);
    for (std::size_t i = first; i < width; ++i) {
        to[i] = 0;
        for (std::size_t at = 0; at < n_rows; ++at)
            to[i] += values[at] * matrix[static_cast<std::size_t>(columns[at]) * width + i];
    }
}

void relu_norm(const ReluNorm &layer, std::size_t first, std::size_t n) {
    const float *bias = layer.bias + first;
    float sum[kNormColumns] = {}, squares[kNormColumns] = {};
    for (std::size_t i = 0; i < layer.n; ++i) {
        const float *from = layer.product + i * layer.width + first;
        float *to = layer.rectified + i * layer.width + first;
        for (std::size_t j = 0; j < n; ++j) {
            const float value = from[j] + bias[j];
            to[j] = value > 0 ? value : 0;
            sum[j] += to[j];
        }
    }
    for (std::size_t j = 0; j < n; ++j)
        sum[j] /= static_cast<float>(layer.n);
    for (std::size_t i = 0; i < layer.n; ++i) {
        const float *from = layer.rectified + i * layer.width + first;
        for (std::size_t j = 0; j < n; ++j)
            squares[j] += (from[j] - sum[j]) * (from[j] - sum[j]);
    }
    float scale[kNormColumns], shift[kNormColumns];
    for (std::size_t j = 0; j < n; ++j) {
        const std::size_t at = first + j;
        const float variance = squares[j] / static_cast<float>(layer.n);
        const float unbiased = squares[j] / static_cast<float>(layer.n - 1);
        layer.mean[at] = sum[j];
        layer.inverse[at] = 1 / __builtin_sqrtf(variance + layer.eps);
        layer.running_mean[at] += layer.momentum * (sum[j] - layer.running_mean[at]);
        layer.running_variance[at] += layer.momentum * (unbiased - layer.running_variance[at]);
        scale[j] = layer.scale[at] * layer.inverse[at];
        shift[j] = layer.shift[at] - sum[j] * scale[j];
    }
    for (std::size_t i = 0; i < layer.n; ++i) {
        const float *from = layer.rectified + i * layer.width + first;
        float *to = layer.out + i * layer.width + first;
        for (std::size_t j = 0; j < n; ++j)
            to[j] = from[j] * scale[j] + shift[j];
    }
}

void relu_norm_backward(const ReluNormGradient &layer, std::size_t first, std::size_t n) {
    const float *mean = layer.mean + first, *inverse = layer.inverse + first;
    float sum[kNormColumns] = {}, along[kNormColumns] = {}, bias[kNormColumns] = {};
    for (std::size_t i = 0; i < layer.n; ++i) {
        const float *grad = layer.grad + i * layer.width + first;
        const float *x = layer.rectified + i * layer.width + first;
        for (std::size_t j = 0; j < n; ++j) {
            sum[j] += grad[j];
            along[j] += grad[j] * (x[j] - mean[j]);
        }
    }
    float factor[kNormColumns], slope[kNormColumns], offset[kNormColumns];
    for (std::size_t j = 0; j < n; ++j) {
        layer.shift_out[first + j] = sum[j];
        layer.scale_out[first + j] = along[j] * inverse[j];
        factor[j] = layer.scale[first + j] * inverse[j];
        slope[j] = -factor[j] * along[j] * inverse[j] * inverse[j] / static_cast<float>(layer.n);
        offset[j] = -factor[j] * sum[j] / static_cast<float>(layer.n) - slope[j] * mean[j];
    }
    for (std::size_t i = 0; i < layer.n; ++i) {
        const float *grad = layer.grad + i * layer.width + first;
        const float *x = layer.rectified + i * layer.width + first;
        float *to = layer.product + i * layer.width + first;
        for (std::size_t j = 0; j < n; ++j) {
            const float value = grad[j] * factor[j] + x[j] * slope[j] + offset[j];
            to[j] = x[j] > 0 ? value : 0;
            bias[j] += to[j];
        }
    }
    for (std::size_t j = 0; j < n; ++j)
        layer.bias[first + j] = bias[j];
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
