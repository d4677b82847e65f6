// Starting a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace ssbhash::cuda {

inline std::int64_t over(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), std::int64_t n_blocks, std::int64_t n_rows,
                   int n_threads, int shared_bytes, cudaStream_t stream, Arguments... arguments) {
    if (n_blocks == 0 || n_rows == 0)
        return cudaSuccess;
    if (n_blocks > INT32_MAX)
        return cudaErrorInvalidValue;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    cudaLaunchConfig_t config{};
    config.gridDim = {static_cast<unsigned>(n_blocks), static_cast<unsigned>(n_rows), 1};
    config.blockDim = {static_cast<unsigned>(n_threads), 1, 1};
    config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace ssbhash::cuda
