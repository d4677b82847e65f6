// Logits to packed codes in one pass, and relaxed bits: docs/sampling.md.
#pragma once

#include "core/base/threads.hpp"
#include "core/sampling/sampling_kernels.hpp"

#include <vector>

namespace ssbhash {

// A matrix [n, n_bits]; strides in bytes, of any sign.
struct Logits {
    const void *data;
    std::size_t n;
    std::size_t n_bits;
    std::ptrdiff_t row_stride;
    std::ptrdiff_t bit_stride;
    LogitType type;
};

// Which random numbers: those of a seed, for rows counted from first_row.
struct Draw {
    std::uint64_t seed;
    std::uint64_t first_row = 0;
    std::size_t n_samples = 1; // codes for each row
};

// Each returns the first row that holds a NaN or an infinity, or -1; the output
// is then unspecified.

// codes [n_samples, n, n_bytes]
std::int64_t sample(const Logits &logits, const Draw &draw, const Schedule &schedule,
                    std::uint8_t *codes);

// codes [n, n_bytes]; one threshold for each bit
std::int64_t binarize(const Logits &logits, const std::vector<double> &thresholds,
                      const Schedule &schedule, std::uint8_t *codes);

// relaxed [n, n_bits]; one sample
std::int64_t sample_relaxed(const Logits &logits, double tau, const Draw &draw,
                            const Schedule &schedule, float *relaxed);

} // namespace ssbhash
