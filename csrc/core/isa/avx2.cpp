// x86-64 with AVX2, BMI1, BMI2 and POPCNT.
#include <immintrin.h>

#define SSBHASH_ISA avx2
#define SSBHASH_WORD_BYTES 32
#include "core/isa/kernels.inc"
