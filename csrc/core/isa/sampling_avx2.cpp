// AVX2, FMA (for what need not be exact) and F16C.
#define SSBHASH_ISA avx2
#include "core/isa/sampling.inc"
