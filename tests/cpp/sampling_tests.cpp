// Sampling at the edges of exactly sized memory, and split in any way, against the rule
// bit by bit. Under the sanitizers a read or a write outside fails too.
#include "core/sampling/bernoulli.hpp"
#include "core/sampling/sampling.hpp"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

using namespace ssbhash;

namespace {

std::mt19937_64 generator(2);

void require(bool condition, const char *what, std::size_t n, std::size_t n_bits) {
    if (condition)
        return;
    std::printf("FAILED: %s, n %zu, n_bits %zu\n", what, n, n_bits);
    std::exit(1);
}

bool bit_at(const std::uint8_t *codes, std::size_t n_bits, std::size_t row, std::size_t bit) {
    return codes[row * ((n_bits + 7) / 8) + bit / 8] >> (bit % 8) & 1;
}

bool rule(float logit, std::uint64_t seed, std::uint64_t row, std::size_t bit) {
    const auto words =
        philox({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                static_cast<std::uint32_t>(bit / 8), 0},
               seed);
    const auto half = static_cast<std::int16_t>(words[bit % 8 / 2] >> (16 * (bit % 2)));
    return exact_bit(logit, half, {seed, row, static_cast<std::uint32_t>(bit), 0});
}

void check(std::size_t n, std::size_t n_bits, std::size_t stride) {
    const std::size_t n_values = (n - 1) * stride + n_bits; // nothing after the last row
    const std::unique_ptr<float[]> values(new float[n_values]);
    std::normal_distribution<float> normal(0, 3);
    for (std::size_t i = 0; i < n_values; ++i)
        values[i] = normal(generator);
    const Logits logits{values.get(),  n,
                        n_bits,        static_cast<std::ptrdiff_t>(stride * sizeof(float)),
                        sizeof(float), LogitType::float32};
    const std::uint64_t seed = generator();
    const std::uint64_t first_row = (std::uint64_t{1} << 32) - generator() % (2 * n);
    const Schedule schedule{2, {}};
    const std::size_t n_bytes = n * ((n_bits + 7) / 8);
    const std::unique_ptr<std::uint8_t[]> codes(new std::uint8_t[n_bytes]);
    require(sample(logits, {seed, first_row}, schedule, codes.get()) == -1, "finite", n, n_bits);
    for (std::size_t row = 0; row < n; ++row)
        for (std::size_t bit = 0; bit < n_bits; ++bit)
            require(bit_at(codes.get(), n_bits, row, bit) ==
                        rule(values[row * stride + bit], seed, first_row + row, bit),
                    "sampled bit", n, n_bits);
    binarize(logits, std::vector<double>(n_bits, 0.5), schedule, codes.get());
    for (std::size_t row = 0; row < n; ++row)
        for (std::size_t bit = 0; bit < n_bits; ++bit)
            require(bit_at(codes.get(), n_bits, row, bit) == (values[row * stride + bit] > 0.5f),
                    "thresholded bit", n, n_bits);
    const std::unique_ptr<float[]> relaxed(new float[n * n_bits]), one(new float[n_bits]);
    sample_relaxed(logits, 0.7, {seed, first_row}, schedule, relaxed.get());
    for (std::size_t row = 0; row < n; ++row) {
        Logits single = logits;
        single.data = values.get() + row * stride;
        single.n = 1;
        sample_relaxed(single, 0.7, {seed, first_row + row}, schedule, one.get());
        for (std::size_t bit = 0; bit < n_bits; ++bit)
            require(one[bit] == relaxed[row * n_bits + bit], "relaxed bit", n, n_bits);
    }
}

} // namespace

int main() {
    std::size_t n_checked = 0;
    for (std::size_t n_bits : {1, 3, 8, 9, 25, 32, 50, 64, 100, 257, 512, 520, 2050})
        for (std::size_t n : {1, 2, 7, 40, 70, 300})
            for (std::size_t gap : {0, 1, 5}) {
                check(n, n_bits, n_bits + gap);
                ++n_checked;
            }
    std::printf("sampling_tests: %zu shapes passed\n", n_checked);
}
