// x86-64 with AVX2, BMI1, BMI2, POPCNT, FMA and F16C.
#include <immintrin.h>

#define SSBHASH_ISA avx2
#define SSBHASH_WORD_BYTES 32
#include "core/isa/tables.hpp"
