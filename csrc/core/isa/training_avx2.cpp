// AVX2 and FMA.
#define SSBHASH_ISA avx2
#include "core/isa/training.inc"
