// Codes from logits on a device: docs/sampling.md. All pointers are to the device's memory.
#pragma once

#include "core/sampling/sampling_kernels.hpp"

#include <cuda_runtime.h>

namespace ssbhash::cuda {

// A matrix [n, n_bits]; strides in values, of any sign.
struct DeviceLogits {
    const void *data;
    std::int64_t n;
    std::int32_t n_bits;
    std::int64_t row_stride;
    std::int64_t bit_stride;
    LogitType type;
    // The first row that holds a NaN or an infinity is noted here, if it is less.
    std::int64_t *bad_row;
};

// codes [n_samples][n][n_bytes]
cudaError_t sample(const DeviceLogits &logits, std::uint64_t seed, std::uint64_t first_row,
                   std::int64_t n_samples, std::uint8_t *codes, cudaStream_t stream);

// codes [n][n_bytes]; thresholds [n_bits]: float for all types but float64, which takes doubles.
cudaError_t binarize(const DeviceLogits &logits, const void *thresholds, std::uint8_t *codes,
                     cudaStream_t stream);

// relaxed [n][n_bits]; NaN where the logit is not finite.
cudaError_t sample_relaxed(const DeviceLogits &logits, double tau, std::uint64_t seed,
                           std::uint64_t first_row, float *relaxed, cudaStream_t stream);

} // namespace ssbhash::cuda
