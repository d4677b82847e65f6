// x86-64-v3: AVX2, BMI1, BMI2, POPCNT.
#define SSBHASH_ISA avx2
#include "core/isa/kernels.inc"
