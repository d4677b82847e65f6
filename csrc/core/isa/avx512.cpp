// x86-64 with AVX-512 F, BW and VL, besides what avx2.cpp needs.
#include <immintrin.h>

#define SSBHASH_ISA avx512
#define SSBHASH_WORD_BYTES 64
#include "core/isa/kernels.inc"
