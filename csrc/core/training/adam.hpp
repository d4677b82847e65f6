// The update of Adam (Kingma and Ba, 2015).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

// Weights and both moments [n_rows, width]. eps is added to the root of the second moment.
// With an average of the weights over steps, each step moves it by `share` of the way to them.
struct Adam {
    float *weight, *mean, *square;
    std::size_t width;
    float eps;
    float *average = nullptr;
    float share = 0;
};

// What each of n rows has missed since its last step: the sum of the step sizes, and by how much
// its moments have decayed.
struct Missed {
    const std::int64_t *rows;
    const float *step, *mean_decay, *square_decay;
    std::size_t n;
};

// Makes rows current: weights take the missed steps, and moments decay.
void catch_up(const Adam &adam, const Missed &missed, std::size_t n_threads);

// Rows of the weight and their gradients [n, width].
struct RowGradient {
    const std::int64_t *rows;
    const float *gradient;
    std::size_t n;
};

// Takes one step with some rows, which must be current.
void step_rows(const Adam &adam, const RowGradient &gradient, float step, std::size_t n_threads);

// Takes one step with all weights, seen as one vector. gradients[i] belongs to the next sizes[i]
// weights.
void step_all(const Adam &adam, const std::vector<const float *> &gradients,
              const std::vector<std::size_t> &sizes, float step, std::size_t n_threads);

} // namespace ssbhash
