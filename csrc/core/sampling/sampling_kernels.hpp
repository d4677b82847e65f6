// The sampling functions that each instruction set fills in; see search_kernels.hpp.
//
// They work on units of 8 logits, which become one byte of a code: unit g of a
// row holds bits 8g ... 8g + 7.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ssbhash {

enum class LogitType { float16, bfloat16, float32, float64 };
inline constexpr std::size_t kLogitTypes = 4;

// Blocks of random bits, in order: row by row, `per_row` blocks each.
struct BlockRange {
    std::uint64_t row;
    std::uint32_t index; // of the first block within its row
    std::uint32_t per_row;
    std::uint32_t stream;
    std::uint32_t sample;
    std::uint64_t seed;
};

inline constexpr std::size_t kBlocksAtOnce = 8;

inline constexpr std::size_t kRelaxUnits = 8;

// Where units lie, 8 values each: `gap` values between a row's last unit and the next
// row, less than 0 where n_bits is no multiple of 8 (the last values of a row's last unit
// are then what follows in memory).
struct Units {
    const void *data;
    std::size_t in_row; // number of the first in its row
    std::size_t per_row;
    std::ptrdiff_t gap;
};

struct SamplingKernels {
    // Write 16 bytes for each of n blocks and up to kBlocksAtOnce - 1 more. Whole rows
    // take less time.
    void (*random_blocks)(const BlockRange &range, std::size_t n, std::uint8_t *out);

    // One code byte for each unit from its 8 random halves. A bit whose random
    // half is too near its probability to tell is set in `unsure`: the caller
    // decides it exactly. Returns false if a logit may not be finite.
    bool (*draw[kLogitTypes])(const Units &logits, const std::uint8_t *random, std::size_t n_units,
                              std::uint8_t *codes, std::uint8_t *unsure);

    // bit = logit > threshold, thresholds [per_row * 8]: float for all types but
    // float64, which takes doubles.
    bool (*threshold[kLogitTypes])(const Units &logits, const void *thresholds, std::size_t n_units,
                                   std::uint8_t *codes);

    // Binary Concrete from 8 random words for each unit, n_units a multiple of
    // kRelaxUnits: 1 / (1 + 2^(logit_scale * logit + noise_scale * noise)). Written in
    // order, `gap` floats between rows as in the logits.
    bool (*relax[kLogitTypes])(const Units &logits, const std::uint8_t *random, std::size_t n_units,
                               float logit_scale, float noise_scale, float *relaxed,
                               std::ptrdiff_t gap);
};

} // namespace ssbhash
