// Compiled with -fmad=false: the exact rule and the relaxed bits are specified to the last bit.
#include "cuda/sampling.hpp"

#include "core/sampling/bernoulli.hpp"
#include "cuda/launch.hpp"

#include <cstring>
#include <type_traits>

#define SSBHASH_ISA cuda
#define SSBHASH_FORMULA __device__ inline
#define SSBHASH_PRAGMA(text) _Pragma(#text)
#if defined(__CUDACC__)
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(unroll)
#else
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(GCC unroll n)
#endif

namespace ssbhash::cuda::sampling {
namespace {

// One lane in place of a vector: see vectors.hpp.
using Floats = float;
using Ints = std::int32_t;
using Words = std::uint32_t;
constexpr int kAbreast = 4; // words of a random block

template <typename To, typename From>
__device__ inline To bits_of(From from) {
    return std::bit_cast<To>(from);
}
template <typename To, typename From>
__device__ inline To converted(From from) {
    return static_cast<To>(from);
}
template <typename Vector>
__device__ inline Vector all(float value) {
    return value;
}
__device__ inline Words ones_if_at_least(Words x, Words bound) { return x >= bound ? ~0u : 0u; }
__device__ inline Floats magnitude(Floats x) { return std::fabs(x); }
__device__ inline Floats clamped(Floats x, float limit) {
    x = x < limit ? x : limit;
    return x > -limit ? x : -limit;
}
__device__ inline Floats multiply_add(Floats a, Floats b, Floats c) { // rounding does not matter
    return std::fma(a, b, c);
}

} // namespace
} // namespace ssbhash::cuda::sampling

#include "core/sampling/kernels/formulas.hpp"

namespace ssbhash::cuda {
namespace {

using namespace sampling;

constexpr int kThreads = 256;

struct Float16 {
    std::uint16_t bits;
    __device__ float value() const { return half_to_float(bits); }
};
struct BFloat16 {
    std::uint16_t bits;
    __device__ float value() const { return bits_of<float>(std::uint32_t{bits} << 16); }
};
struct Float32 {
    float bits;
    __device__ float value() const { return bits; }
};
struct Float64 {
    double bits;
    __device__ double value() const { return bits; }
};

// Logits first ... first + n - 1 of a row; zeros fill up. Whole groups that lie side by side and
// aligned are read 16 bytes at a time.
template <typename T, int n>
struct Row {
    T logits[n];

    __device__ Row(const DeviceLogits &from, std::int64_t row, std::int32_t first) {
        const T *at =
            static_cast<const T *>(from.data) + row * from.row_stride + first * from.bit_stride;
        constexpr int bytes = n * int{sizeof(T)};
        if (bytes % 16 == 0 && from.bit_stride == 1 && first + n <= from.n_bits &&
            reinterpret_cast<std::uintptr_t>(at) % 16 == 0) {
            uint4 parts[bytes < 16 ? 1 : bytes / 16];
#pragma unroll
            for (int i = 0; i < bytes / 16; ++i)
                parts[i] = reinterpret_cast<const uint4 *>(at)[i];
            memcpy(logits, parts, bytes);
            return;
        }
#pragma unroll
        for (int i = 0; i < n; ++i)
            logits[i] = first + i < from.n_bits ? at[i * from.bit_stride] : T{};
    }

    __device__ bool is_finite() const {
        bool all = true;
#pragma unroll
        for (int i = 0; i < n; ++i)
            all &= std::isfinite(logits[i].value());
        return all;
    }
};

__device__ inline void note_bad_row(const DeviceLogits &logits, std::int64_t row) {
    using Unsigned = unsigned long long; // no row is negative
    atomicMin(reinterpret_cast<Unsigned *>(logits.bad_row), static_cast<Unsigned>(row));
}

__device__ inline std::array<std::uint32_t, 4> random_block(std::uint64_t row, Stream stream,
                                                            std::int64_t place,
                                                            std::uint32_t sample,
                                                            std::uint64_t seed) {
    return philox({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                   static_cast<std::uint32_t>(stream) | static_cast<std::uint32_t>(place), sample},
                  seed);
}

// A thread has `n` logits of one row: which.
template <int n>
struct Place {
    std::int64_t per_row, index, row;
    std::int32_t in_row;

    __device__ explicit Place(const DeviceLogits &logits)
        : per_row((logits.n_bits + n - 1) / n),
          index(std::int64_t{blockIdx.x} * kThreads + threadIdx.x), row(index / per_row),
          in_row(static_cast<std::int32_t>(index % per_row)) {}
};

// Of one bit in ten thousand; inlined eight times it would take half of the registers.
__device__ __noinline__ bool decide(double logit, std::int16_t half, const BitAddress &at) {
    return exact_bit(logit, half, at);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    draw(const __grid_constant__ DeviceLogits logits, std::uint64_t seed, std::uint64_t first_row,
         std::int64_t n_samples, std::uint8_t *codes) {
    const Place<8> place(logits);
    if (place.row >= logits.n)
        return;
    const Row<T, 8> row(logits, place.row, 8 * place.in_row);
    if (!row.is_finite())
        note_bad_row(logits, place.row);
    for (std::int64_t number = 0; number < n_samples; ++number) {
        const auto sample = static_cast<std::uint32_t>(number);
        const std::uint64_t row_number = first_row + static_cast<std::uint64_t>(place.row);
        const auto words = random_block(row_number, Stream::prefix, place.in_row, sample, seed);
        unsigned code = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const auto half = static_cast<std::int16_t>(words[i / 2] >> 16 * (i % 2));
            const auto logit = row.logits[i].value();
            float doubt;
            bool is_set = bits_of<std::int32_t>(
                              is_set_if_negative(static_cast<float>(logit), half, doubt)) < 0;
            if (doubt < 0)
                is_set = decide(
                    logit, half,
                    {seed, row_number, static_cast<std::uint32_t>(8 * place.in_row + i), sample});
            code |= unsigned{is_set} << i;
        }
        const std::int32_t left = logits.n_bits - 8 * place.in_row;
        codes[number * logits.n * place.per_row + place.index] =
            static_cast<std::uint8_t>(left < 8 ? code & ((1u << left) - 1) : code);
    }
}

template <typename T, typename Threshold>
__global__ void __launch_bounds__(kThreads)
    above(const __grid_constant__ DeviceLogits logits, const Threshold *thresholds,
          std::uint8_t *codes) {
    const Place<8> place(logits);
    if (place.row >= logits.n)
        return;
    const Row<T, 8> row(logits, place.row, 8 * place.in_row);
    if (!row.is_finite())
        note_bad_row(logits, place.row);
    unsigned code = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (8 * place.in_row + i < logits.n_bits)
            code |= unsigned{row.logits[i].value() > thresholds[8 * place.in_row + i]} << i;
    codes[place.index] = static_cast<std::uint8_t>(code);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    relax(const __grid_constant__ DeviceLogits logits, float logit_scale, float noise_scale,
          std::uint64_t seed, std::uint64_t first_row, float *relaxed) {
    const Place<kAbreast> place(logits);
    if (place.row >= logits.n)
        return;
    const std::int32_t first = kAbreast * place.in_row;
    const Row<T, kAbreast> row(logits, place.row, first);
    if (!row.is_finite())
        note_bad_row(logits, place.row);
    const auto words = random_block(first_row + static_cast<std::uint64_t>(place.row),
                                    Stream::relaxed, place.in_row, 0, seed);
    float values[kAbreast], noise[kAbreast];
    log2_odds([&](int i) { return words[i]; }, noise);
    each([&](int i) {
        values[i] =
            static_cast<float>(row.logits[i].value()) * logit_scale + noise[i] * noise_scale;
    });
    float *to = relaxed + place.row * logits.n_bits + first;
    sigmoid_of_minus(values, [&](int i, float value) {
        if (first + i < logits.n_bits)
            to[i] = std::isfinite(row.logits[i].value()) ? value : NAN;
    });
}

template <int n>
std::int64_t n_blocks(const DeviceLogits &logits) {
    return over(logits.n * over(logits.n_bits, n), kThreads);
}

template <typename Action>
cudaError_t with_type(LogitType type, const Action &action) {
    switch (type) {
    case LogitType::float16:
        return action(Float16{}, float{});
    case LogitType::bfloat16:
        return action(BFloat16{}, float{});
    case LogitType::float32:
        return action(Float32{}, float{});
    default:
        return action(Float64{}, double{});
    }
}

} // namespace

cudaError_t sample(const DeviceLogits &logits, std::uint64_t seed, std::uint64_t first_row,
                   std::int64_t n_samples, std::uint8_t *codes, cudaStream_t stream) {
    return with_type(logits.type, [&](auto type, auto) {
        return launch(draw<decltype(type)>, n_blocks<8>(logits), 1, kThreads, 0, stream, logits,
                      seed, first_row, n_samples, codes);
    });
}

cudaError_t binarize(const DeviceLogits &logits, const void *thresholds, std::uint8_t *codes,
                     cudaStream_t stream) {
    return with_type(logits.type, [&](auto type, auto threshold) {
        using Threshold = decltype(threshold);
        return launch(above<decltype(type), Threshold>, n_blocks<8>(logits), 1, kThreads, 0, stream,
                      logits, static_cast<const Threshold *>(thresholds), codes);
    });
}

cudaError_t sample_relaxed(const DeviceLogits &logits, double tau, std::uint64_t seed,
                           std::uint64_t first_row, float *relaxed, cudaStream_t stream) {
    const auto logit_scale = static_cast<float>(-0x1.71547652b82fep+0 / tau); // log2(e)
    const auto noise_scale = static_cast<float>(-1.0 / tau);
    return with_type(logits.type, [&](auto type, auto) {
        return launch(relax<decltype(type)>, n_blocks<kAbreast>(logits), 1, kThreads, 0, stream,
                      logits, logit_scale, noise_scale, seed, first_row, relaxed);
    });
}

} // namespace ssbhash::cuda
