// An emulator in place of CUDA's own header: the kernels' source, compiled as C++.
//
// Each thread of a block is a fiber that gives way only at a barrier or a warp operation, so a
// missing barrier lets it run far ahead of the others. Blocks, and threads between barriers,
// run in an order drawn from SSBHASH_EMULATOR_SEED, so that a race shows as a wrong result.
// Shared memory is filled with noise before each block; what lies beyond is checked, and under
// the address sanitizer poisoned. Fibers that wait for each other in vain end the program.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __CUDA_EMULATOR__ 1

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

using cudaError_t = int;
using cudaStream_t = struct EmulatedStream *;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrComputeCapabilityMajor
};
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    cudaLaunchAttribute *attrs = nullptr;
    unsigned numAttrs = 0;
};

inline dim3 blockIdx, threadIdx, blockDim, gridDim;

namespace emulator {

constexpr std::size_t kSharedBytes = 232448; // what a block can have on sm_90
constexpr std::size_t kStackBytes = 256 << 10;
alignas(128) inline unsigned char shared_memory[kSharedBytes + 4096];

[[noreturn]] inline void fail(const char *what) {
    std::fprintf(stderr, "emulator: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
    std::abort();
}

struct Random {
    std::uint64_t state;
    std::uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }
    void shuffle(std::vector<unsigned> &order) {
        for (std::size_t i = order.size(); i > 1; --i)
            std::swap(order[i - 1], order[next() % i]);
    }
};

inline Random random_order{[] {
    const char *seed = std::getenv("SSBHASH_EMULATOR_SEED");
    return 0x9E3779B97F4A7C15u + (seed ? std::strtoull(seed, nullptr, 10) * 2 : 0);
}()};

#if defined(__x86_64__)
extern "C" void ssbhash_emulator_switch(void **save, void *load);
// One copy for all translation units.
__asm__(".weak ssbhash_emulator_switch\n"
        "ssbhash_emulator_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
#endif

struct Fiber {
    std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
    unsigned index = 0;
    bool done = false;
    const unsigned *waits_for = nullptr; // resumed when this is no longer `seen`
    unsigned seen = 0;
#if defined(__x86_64__)
    void *top = nullptr;
#else
    ucontext_t context;
#endif
};

// Lanes that wait for each other, with what each brought.
struct Meeting {
    unsigned mask = 0, arrived = 0, generation = 0;
    std::uint64_t brought[32], result[32];
};

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<std::vector<std::unique_ptr<Meeting>>> meetings; // of each warp
    unsigned n_threads = 0, n_done = 0, n_at_barrier = 0, barrier_generation = 0;
    Fiber *current = nullptr;
    void (*body)(void *) = nullptr;
    void *arguments = nullptr;
#if defined(__x86_64__)
    void *scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
};

inline Block block;
inline std::mutex one_launch; // threads of the host take turns

inline void to_scheduler(Fiber &fiber) {
#if defined(__x86_64__)
    ssbhash_emulator_switch(&fiber.top, block.scheduler);
#else
    swapcontext(&fiber.context, &block.scheduler);
#endif
}

inline void wait(const unsigned &generation, unsigned seen) {
    Fiber &fiber = *block.current;
    fiber.waits_for = &generation;
    fiber.seen = seen;
    to_scheduler(fiber);
}

inline void release_barrier_if_complete() {
    if (block.n_at_barrier > 0 && block.n_at_barrier + block.n_done == block.n_threads) {
        block.n_at_barrier = 0;
        ++block.barrier_generation;
    }
}

inline void run_fiber() {
    block.body(block.arguments);
    block.current->done = true;
    ++block.n_done;
    release_barrier_if_complete();
    to_scheduler(*block.current);
    std::abort(); // a fiber that is done is not resumed
}

inline void prepare(Fiber &fiber, unsigned index) {
    fiber.index = index;
    fiber.done = false;
    fiber.waits_for = nullptr;
#if defined(__x86_64__)
    auto *top = reinterpret_cast<void **>(fiber.stack.get() + kStackBytes);
    top -= reinterpret_cast<std::uintptr_t>(top) / sizeof(void *) % 2; // 16 bytes
    *--top = nullptr; // where run_fiber would return to
    *--top = reinterpret_cast<void *>(&run_fiber);
    for (int i = 0; i < 6; ++i)
        *--top = nullptr;
    fiber.top = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &run_fiber, 0);
#endif
}

inline void resume(Fiber &fiber) {
    block.current = &fiber;
    threadIdx.x = fiber.index;
#if defined(__x86_64__)
    ssbhash_emulator_switch(&block.scheduler, fiber.top);
#else
    swapcontext(&block.scheduler, &fiber.context);
#endif
}

inline unsigned char noise = 0xA5; // as numbers of 32 bits negative, or positive

inline void set_up_shared(std::size_t n_bytes) {
    noise = random_order.next() % 2 == 0 ? 0xA5 : 0x5A;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(shared_memory, sizeof shared_memory);
#endif
    std::memset(shared_memory, noise, n_bytes + 4096);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(shared_memory + n_bytes, sizeof shared_memory - n_bytes);
#endif
}

inline void check_shared(std::size_t n_bytes) {
#if !defined(__SANITIZE_ADDRESS__)
    for (std::size_t i = 0; i < 4096; ++i)
        if (shared_memory[n_bytes + i] != noise)
            fail("a write beyond shared memory");
#endif
}

// Let threads first ... last - 1 go on to their next wait, in any order; whether one could.
inline bool step(unsigned first, unsigned last) {
    static std::vector<unsigned> order;
    order.resize(last - first);
    std::iota(order.begin(), order.end(), first);
    random_order.shuffle(order);
    bool has_moved = false;
    for (const unsigned i : order) {
        Fiber &fiber = *block.fibers[i];
        if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.seen))
            continue;
        has_moved = true;
        fiber.waits_for = nullptr;
        resume(fiber);
    }
    return has_moved;
}

inline void run_block(std::size_t shared_bytes) {
    const unsigned n = block.n_threads;
    while (block.fibers.size() < n)
        block.fibers.push_back(std::make_unique<Fiber>());
    block.meetings.clear();
    block.meetings.resize((n + 31) / 32);
    block.n_done = block.n_at_barrier = 0;
    set_up_shared(shared_bytes);
    for (unsigned i = 0; i < n; ++i)
        prepare(*block.fibers[i], i);
    // Either all threads go on to their next wait in turn, or a warp goes on alone as far as it
    // can, to a barrier of the block.
    const unsigned together = random_order.next() % 4 == 0 ? n : 32;
    std::vector<unsigned> groups((n + together - 1) / together);
    std::iota(groups.begin(), groups.end(), 0u);
    while (block.n_done < n) {
        random_order.shuffle(groups);
        bool has_moved = false;
        for (const unsigned group : groups)
            while (step(group * together, std::min(n, (group + 1) * together)))
                has_moved = true;
        if (!has_moved)
            fail("threads wait for each other in vain");
    }
    check_shared(shared_bytes);
}

// What the lanes of `mask` brought, for each of them.
inline const std::uint64_t *meet(unsigned mask, std::uint64_t value) {
    const unsigned lane = block.current->index % 32;
    if (!(mask >> lane & 1))
        fail("a lane outside the mask of its warp operation");
    auto &meetings = block.meetings[block.current->index / 32];
    Meeting *meeting = nullptr;
    for (auto &each : meetings)
        if (each->mask == mask)
            meeting = each.get();
    if (!meeting) {
        meetings.push_back(std::make_unique<Meeting>());
        meeting = meetings.back().get();
        meeting->mask = mask;
    }
    meeting->brought[lane] = value;
    meeting->arrived |= 1u << lane;
    if (meeting->arrived == mask) {
        std::memcpy(meeting->result, meeting->brought, sizeof meeting->result);
        meeting->arrived = 0;
        ++meeting->generation;
    } else {
        wait(meeting->generation, meeting->generation);
    }
    return meeting->result;
}

// mma.m16n8k128 of single bits with `and` and `popc`; fragments as PTX lays them out.
inline void add_shared_bits(std::int32_t (&sums)[4], unsigned low_row, unsigned high_row,
                            unsigned query) {
    const unsigned own[3] = {low_row, high_row, query};
    const std::uint64_t *of_lane = meet(~0u, reinterpret_cast<std::uintptr_t>(own));
    const unsigned lane = block.current->index % 32;
    for (unsigned i = 0; i < 4; ++i)
        for (unsigned word = 0; word < 4; ++word) {
            const unsigned column = 2 * (lane % 4) + i % 2;
            const auto *row = reinterpret_cast<const unsigned *>(of_lane[lane / 4 * 4 + word]);
            const auto *other = reinterpret_cast<const unsigned *>(of_lane[4 * column + word]);
            sums[i] += __builtin_popcount(row[i / 2] & other[2]);
        }
    meet(~0u, 0); // nobody leaves while others look
}

} // namespace emulator

inline void __syncthreads() {
    ++emulator::block.n_at_barrier;
    const unsigned seen = emulator::block.barrier_generation;
    emulator::release_barrier_if_complete();
    if (seen == emulator::block.barrier_generation)
        emulator::wait(emulator::block.barrier_generation, seen);
}

inline void __syncwarp(unsigned mask = ~0u) { emulator::meet(mask, 0); }

inline unsigned __ballot_sync(unsigned mask, int is_set) {
    const std::uint64_t *values = emulator::meet(mask, is_set != 0);
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        ballot |= (mask >> lane & 1 && values[lane]) ? 1u << lane : 0;
    return ballot;
}

inline int __any_sync(unsigned mask, int is_set) { return __ballot_sync(mask, is_set) != 0; }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    const unsigned lane = emulator::block.current->index % 32;
    const unsigned from = lane / width * width + static_cast<unsigned>(source) % width;
    word = emulator::meet(mask, word)[from];
    std::memcpy(&value, &word, sizeof value);
    return value;
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned in_group = emulator::block.current->index % 32 % width;
    return __shfl_sync(mask, value, in_group < delta ? in_group : in_group - delta, width);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned in_group = emulator::block.current->index % 32 % width;
    return __shfl_sync(mask, value, static_cast<int>(in_group) ^ lanes, width);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
template <typename T>
T __ldcg(const T *from) {
    return *from;
}
template <typename T>
T atomicAdd(T *at, T value) {
    const T old = *at;
    *at = old + value;
    return old;
}
template <typename T>
T atomicMin(T *at, T value) {
    const T old = *at;
    *at = value < old ? value : old;
    return old;
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int value) {
    return value <= static_cast<int>(emulator::kSharedBytes) ? cudaSuccess : cudaErrorInvalidValue;
}

inline cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    const char *shared = std::getenv("SSBHASH_EMULATOR_SHARED"); // bytes, of a smaller device
    const int bytes = shared ? std::atoi(shared) : static_cast<int>(emulator::kSharedBytes);
    *value = attribute == cudaDevAttrMultiProcessorCount      ? 2
             : attribute == cudaDevAttrComputeCapabilityMajor ? 9
                                                              : bytes;
    return cudaSuccess;
}
inline const char *cudaGetErrorString(cudaError_t) { return "invalid argument"; }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments &&...arguments) {
    using namespace emulator;
    if (config->dynamicSmemBytes > kSharedBytes || config->blockDim.x == 0 ||
        config->blockDim.x > 1024 || config->gridDim.x == 0 || config->gridDim.y == 0 ||
        config->gridDim.y > 65535)
        return cudaErrorInvalidValue;
    const std::lock_guard lock(one_launch);
    std::tuple<void (*)(Parameters...), std::tuple<Parameters...>> call{
        kernel, std::tuple<Parameters...>{std::forward<Arguments>(arguments)...}};
    block.body = [](void *at) {
        auto &[function, values] = *static_cast<decltype(call) *>(at);
        std::apply(function, values);
    };
    block.arguments = &call;
    block.n_threads = config->blockDim.x;
    blockDim = config->blockDim;
    gridDim = config->gridDim;
    std::vector<unsigned> blocks(std::size_t{gridDim.x} * gridDim.y);
    for (unsigned i = 0; i < blocks.size(); ++i)
        blocks[i] = i;
    random_order.shuffle(blocks);
    for (const unsigned i : blocks) {
        blockIdx = {i % config->gridDim.x, i / config->gridDim.x, 0};
        run_block(config->dynamicSmemBytes);
    }
    return cudaSuccess;
}
