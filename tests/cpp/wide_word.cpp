// The AVX-512 kernels on any machine: the same templates with a word of 64 bytes,
// which the compiler splits, and the same way of adding pairs.
#define SSBHASH_ISA wide_word
#define SSBHASH_WORD_BYTES 64
#define SSBHASH_PLAIN_PAIRS
#include "core/search/kernels/table.hpp"
