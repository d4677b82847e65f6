// The training kernels of one instruction set.
#pragma once

#include "core/training/training_kernels.hpp"

#include <cstdint>
#include <cstring>
#ifdef __AVX__
#include <immintrin.h>
#endif

// Training may fuse a product and a sum; sampling, specified to the last bit, may not.
#if defined(__clang__)
#pragma clang fp contract(fast)
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif
#include "core/training/kernels/class_and_item.hpp"
#include "core/training/kernels/layers.hpp"
#include "core/training/kernels/softmax.hpp"
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC pop_options
#endif

namespace ssbhash::SSBHASH_ISA {

extern const TrainingKernels training_kernels;
const TrainingKernels training_kernels = {
    training::catch_up,           training::step,         training::add_scaled,
    training::sum_rows,           training::dropped,      training::relu_norm,
    training::relu_norm_backward, training::softmax_tile, training::softmax_gradient,
    training::class_and_item,
};

} // namespace ssbhash::SSBHASH_ISA
