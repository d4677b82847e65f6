// Measures for the benchmark how fast this machine reads and computes.
#pragma once

#include "core/search/kernels/word.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

SSBHASH_INLINE Word load_word(const std::uint8_t *bytes) {
    Word word;
    std::memcpy(&word, bytes, sizeof(word));
    return word;
}

// Reads n_bytes once.
std::uint64_t read_all(const std::uint8_t *bytes, std::size_t n_bytes) {
    constexpr std::size_t w = sizeof(Word);
    Word a{}, b{}, c{}, d{};
    for (std::size_t i = 0; i + 4 * w <= n_bytes; i += 4 * w) {
        a ^= load_word(bytes + i);
        b ^= load_word(bytes + i + w);
        c ^= load_word(bytes + i + 2 * w);
        d ^= load_word(bytes + i + 3 * w);
    }
    return (a ^ b ^ c ^ d)[0];
}

// One logic operation that the compiler cannot fold into the next.
SSBHASH_INLINE void step(Word &chain, Word mask) {
    chain ^= mask;
#if defined(__x86_64__) && (SSBHASH_WORD_BYTES <= 32 || defined(__AVX512F__))
    asm volatile("" : "+v"(chain));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(chain));
#endif
}

// Does 12 independent chains of n logic operations each. They are separate variables, because the
// compiler would keep an array in memory.
std::uint64_t run_logic(std::size_t n) {
    const Word mask = broadcast(n);
    Word a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{}, i{}, j{}, k{}, l{};
    for (std::size_t round = 0; round < n; ++round) {
        step(a, mask), step(b, mask), step(c, mask), step(d, mask);
        step(e, mask), step(f, mask), step(g, mask), step(h, mask);
        step(i, mask), step(j, mask), step(k, mask), step(l, mask);
    }
    return (a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j ^ k ^ l)[0];
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
