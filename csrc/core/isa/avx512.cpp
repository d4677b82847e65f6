// x86-64 with AVX-512 F, BW and VL, besides what avx2.cpp needs.
#include <immintrin.h>

#define SSBHASH_ISA avx512
#define SSBHASH_WORD_BYTES 64
#include "core/base/dispatch.hpp"
#include "core/search/kernels/table.hpp"

namespace ssbhash {

namespace avx2 {
extern const SamplingKernels sampling_kernels;
extern const TrainingKernels training_kernels;
} // namespace avx2

namespace avx512 {

// Sampling and training work on vectors of 32 bytes, so they use AVX2's kernels.
extern const InstructionSet instruction_set;
const InstructionSet instruction_set = {"avx512", search_kernels, avx2::sampling_kernels,
                                        avx2::training_kernels};

} // namespace avx512
} // namespace ssbhash
