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

// Where units of 8 values lie. `gap` values lie between a row's last unit and the next row.
// If n_bits is no multiple of 8, the last unit of a row reads on into what follows in memory,
// and `gap` may be negative:
//
//     n_bits = 12:   |unit 0 |unit 1 |
//                            |gap -4|unit 0 of the next row ...
struct Units {
    const void *data;
    std::size_t in_row; // number of the first in its row
    std::size_t per_row;
    std::ptrdiff_t gap;
};

struct SamplingKernels {
    // Write n blocks of 16 bytes, and up to kBlocksAtOnce - 1 more. Whole rows take less
    // time.
    void (*random_blocks)(const BlockRange &range, std::size_t n, std::uint8_t *out);

    // Draw one code byte for each unit from 8 random half words of 16 bits. If a half word
    // is too near the probability to decide a bit, that bit is set in `unsure`, and the
    // caller decides it exactly. Returns false if a logit may not be finite.
    bool (*draw[kLogitTypes])(const Units &logits, const std::uint8_t *random, std::size_t n_units,
                              std::uint8_t *codes, std::uint8_t *unsure);

    // bit = logit > threshold. Thresholds [per_row * 8] are doubles for float64 logits,
    // floats for all others.
    bool (*threshold[kLogitTypes])(const Units &logits, const void *thresholds, std::size_t n_units,
                                   std::uint8_t *codes);

    // Draw from the binary Concrete distribution, with 8 random words for each unit:
    //     1 / (1 + 2^(logit_scale * logit + noise_scale * noise)).
    // n_units is a multiple of kRelaxUnits. `gap` floats lie between rows of the output.
    bool (*relax[kLogitTypes])(const Units &logits, const std::uint8_t *random, std::size_t n_units,
                               float logit_scale, float noise_scale, float *relaxed,
                               std::ptrdiff_t gap);
};

} // namespace ssbhash
