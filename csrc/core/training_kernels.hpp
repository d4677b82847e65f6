// The training functions that each instruction set fills in; see kernels.hpp.
#pragma once

#include <cstddef>

namespace ssbhash {

struct TrainingKernels {
    // Catch one row up with the Adam steps that it missed:
    // w -= step m / (sqrt(v) + eps), then m and v decay.
    void (*catch_up)(float *weight, float *mean, float *square, std::size_t n, float step,
                     float mean_decay, float square_decay, float eps);

    // One Adam step of one row.
    void (*step)(float *weight, float *mean, float *square, const float *grad, std::size_t n,
                 float step, float eps);

    // sum += factor * row.
    void (*add_scaled)(float *sum, const float *row, float factor, std::size_t n);

    // y = x + bias, x = exp(y - max y) in place. Returns max y, and the sum in *sum.
    float (*exp_row)(float *x, const float *bias, std::size_t n, float *sum);
};

// The kernels for the instruction set in use.
const TrainingKernels &active_training_kernels();

} // namespace ssbhash
