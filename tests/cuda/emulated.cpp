// The whole extension under the emulator, on tensors of the CPU.
#define SSBHASH_EMULATED
#include "cuda/sampling.cu"
#include "cuda/search.cu"
#include "cuda/torch_ops.cpp"
