// Adam (Kingma and Ba, 2015), the update alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

// Weights and both moments [n_rows, width]; eps is added to the root of the second moment.
struct Adam {
    float *weight, *mean, *square;
    std::size_t width;
    float eps;
};

// What each of n rows missed since its last step: the sum of the step sizes, and the decay of
// the moments.
struct Missed {
    const std::int64_t *rows;
    const float *step, *mean_decay, *square_decay;
    std::size_t n;
};

// Make rows current: weights take the missed steps, moments decay.
void catch_up(const Adam &adam, const Missed &missed, std::size_t n_threads);

// Rows of the weight and their gradients [n, width].
struct RowGradient {
    const std::int64_t *rows;
    const float *gradient;
    std::size_t n;
};

// One step of some rows, which are current.
void step_rows(const Adam &adam, const RowGradient &gradient, float step, std::size_t n_threads);

// One step of all weights as one vector. gradients[i] is that of the next sizes[i] weights.
void step_all(const Adam &adam, const std::vector<const float *> &gradients,
              const std::vector<std::size_t> &sizes, float step, std::size_t n_threads);

} // namespace ssbhash
