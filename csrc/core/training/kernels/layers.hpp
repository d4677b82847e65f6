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
    return mean / (root(square) + eps);
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
        const Floats moved = w - step * direction(m, v, row.eps);
        store(row.weight + i, moved, lanes);
        if (row.average) {
            const Floats average = load(row.average + i, lanes);
            store(row.average + i, average + row.share * (moved - average), lanes);
        }
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

// Values of kept units, scaled; 0 for the others.
Floats kept(Floats values, const std::uint8_t *bytes, std::size_t lanes, const Dropout &dropout) {
    const Ints keeps = load(bytes, lanes) >= dropout.threshold;
    return (Floats)((Ints)(values * dropout.scale) & keeps);
}

void dropped(const float *x, std::size_t n, const Dropout &dropout, float *out) {
    for_vectors(n, 0, [=](std::size_t i, std::size_t lanes) {
        store(out + i, kept(load(x + i, lanes), dropout.bytes + i, lanes, dropout), lanes);
    });
}

// A number for each column of a strip.
constexpr std::size_t kNormVectors = kNormColumns / kLanes;
struct Strip {
    Floats vectors[kNormVectors] = {};

    Floats &operator[](std::size_t v) { return vectors[v]; }
    void read(const float *from, std::size_t n) {
        for (std::size_t v = 0; v * kLanes < n; ++v)
            vectors[v] = load(from + v * kLanes, std::min(kLanes, n - v * kLanes));
    }
    void write(float *to, std::size_t n) const {
        for (std::size_t v = 0; v * kLanes < n; ++v)
            store(to + v * kLanes, vectors[v], std::min(kLanes, n - v * kLanes));
    }
};

// Calls each(at, v, n_lanes) for the vectors of the columns first ... first + n of N rows from row
// i on. `at` is a vector's place in the matrix, v its place in the strip.
template <std::size_t N, typename Layer, typename Each>
void for_rows_of_strip(const Layer &layer, std::size_t i, std::size_t first, std::size_t n,
                       const Each &each) {
    const auto vectors = [&](std::size_t v, std::size_t lanes) {
#pragma GCC unroll 8
        for (std::size_t row = i; row < i + N; ++row)
            each(row * layer.width + first + v * kLanes, v, lanes);
    };
    std::size_t v = 0;
    for (; (v + 1) * kLanes <= n; ++v)
        vectors(v, kLanes);
    if (v * kLanes < n)
        vectors(v, n - v * kLanes);
}

// The same for all rows, some of them together: sums over them stay in registers meanwhile.
template <typename Layer, typename Each>
void for_strip(const Layer &layer, std::size_t first, std::size_t n, const Each &each) {
    constexpr std::size_t n_together = 4;
    std::size_t i = 0;
    for (; i + n_together <= layer.n; i += n_together)
        for_rows_of_strip<n_together>(layer, i, first, n, each);
    for (; i < layer.n; ++i)
        for_rows_of_strip<1>(layer, i, first, n, each);
}

template <typename Layer>
Floats rectified(const Layer &layer, Floats bias, std::size_t at, std::size_t lanes) {
    return larger(load(layer.product + at, lanes) + bias, Floats{});
}

void relu_norm(const ReluNorm &layer, std::size_t first, std::size_t n) {
    Strip bias, mean, squares, inverse, scale, shift, running_mean, running_variance;
    bias.read(layer.bias + first, n);
    scale.read(layer.scale + first, n);
    shift.read(layer.shift + first, n);
    running_mean.read(layer.running_mean + first, n);
    running_variance.read(layer.running_variance + first, n);
    for_strip(layer, first, n, [&](std::size_t at, std::size_t v, std::size_t lanes) {
        mean[v] += rectified(layer, bias[v], at, lanes);
    });
    const float n_rows = static_cast<float>(layer.n);
    for (Floats &sum : mean.vectors)
        sum /= n_rows;
    for_strip(layer, first, n, [&](std::size_t at, std::size_t v, std::size_t lanes) {
        const Floats away = rectified(layer, bias[v], at, lanes) - mean[v];
        squares[v] += away * away;
    });
    for (std::size_t v = 0; v < kNormVectors; ++v) {
        inverse[v] = 1 / root(squares[v] / n_rows + layer.eps);
        running_mean[v] += layer.momentum * (mean[v] - running_mean[v]);
        running_variance[v] += layer.momentum * (squares[v] / (n_rows - 1) - running_variance[v]);
        scale[v] *= inverse[v];
        shift[v] -= mean[v] * scale[v];
    }
    mean.write(layer.mean + first, n);
    inverse.write(layer.inverse + first, n);
    running_mean.write(layer.running_mean + first, n);
    running_variance.write(layer.running_variance + first, n);
    for_strip(layer, first, n, [&](std::size_t at, std::size_t v, std::size_t lanes) {
        Floats y = rectified(layer, bias[v], at, lanes) * scale[v] + shift[v];
        if (layer.dropout.bytes)
            y = kept(y, layer.dropout.bytes + at, lanes, layer.dropout);
        store(layer.out + at, y, lanes);
    });
}

void relu_norm_backward(const ReluNormGradient &layer, std::size_t first, std::size_t n) {
    Strip bias, mean, inverse, sum, along, by_bias, factor, slope, offset;
    bias.read(layer.bias + first, n);
    mean.read(layer.mean + first, n);
    inverse.read(layer.inverse + first, n);
    factor.read(layer.scale + first, n);
    const auto gradient = [&](std::size_t at, std::size_t lanes) {
        const Floats grad = load(layer.grad + at, lanes);
        return layer.dropout.bytes ? kept(grad, layer.dropout.bytes + at, lanes, layer.dropout)
                                   : grad;
    };
    for_strip(layer, first, n, [&](std::size_t at, std::size_t v, std::size_t lanes) {
        const Floats grad = gradient(at, lanes);
        sum[v] += grad;
        along[v] += grad * (rectified(layer, bias[v], at, lanes) - mean[v]);
    });
    const float n_rows = static_cast<float>(layer.n);
    for (std::size_t v = 0; v < kNormVectors; ++v) {
        along[v] *= inverse[v];
        factor[v] *= inverse[v];
        slope[v] = -factor[v] * along[v] * inverse[v] / n_rows;
        offset[v] = -factor[v] * sum[v] / n_rows - slope[v] * mean[v];
    }
    sum.write(layer.by_shift + first, n);
    along.write(layer.by_scale + first, n);
    for_strip(layer, first, n, [&](std::size_t at, std::size_t v, std::size_t lanes) {
        const Floats x = rectified(layer, bias[v], at, lanes);
        const Floats slant = gradient(at, lanes) * factor[v] + x * slope[v] + offset[v];
        const Floats by_product = (Floats)((Ints)slant & (x > 0.0f));
        store(layer.by_product + at, by_product, lanes);
        by_bias[v] += by_product;
    });
    by_bias.write(layer.by_bias + first, n);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
