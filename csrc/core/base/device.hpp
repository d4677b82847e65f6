// Marks of functions and constants that the CPU's kernels share with a CUDA device. nvcc compiles
// them for the device alone.
#pragma once

#if defined(__CUDACC__)
#define SSBHASH_SHARED __device__
#define SSBHASH_CONSTANT __device__ constexpr
#else
#define SSBHASH_SHARED
#define SSBHASH_CONSTANT inline constexpr
#endif
