// Functions and constants that the host and a CUDA device share.
#pragma once

#if defined(__CUDACC__)
#define SSBHASH_SHARED __host__ __device__
#define SSBHASH_CONSTANT __device__ constexpr
#else
#define SSBHASH_SHARED
#define SSBHASH_CONSTANT inline constexpr
#endif
