// A word on the device: 128 codes, four registers of a lane; and adders on it.
//
// Eight lanes together hold a tile of 1,024 codes, code i in bit i % 32 of register i / 32. A
// lane loads 16 bytes at once, so an offset is computed once for four registers.
#pragma once

#include "core/search/search_kernels.hpp"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define SSBHASH_ISA cuda
#define SSBHASH_INLINE __host__ __device__ __forceinline__
#define SSBHASH_PRAGMA(text) _Pragma(#text)
#if defined(__CUDACC__)
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(unroll)
#else
#define SSBHASH_UNROLL(n) SSBHASH_PRAGMA(GCC unroll n)
#endif

namespace ssbhash::cuda::searching {
namespace {

constexpr int kLaneRegisters = 4;
constexpr int kTileLanes = 8;
constexpr int kTileRegisters = kTileLanes * kLaneRegisters;
constexpr int kTileCodes = kTileRegisters * 32;

// Tables: counter.hpp.
constexpr std::size_t kTableStep = kTileRegisters * sizeof(std::uint32_t);
constexpr std::size_t kOffsetScale = 1;
using Offset = std::uint16_t;

// A query's offsets, each with the lane's place in a plane: one operation for both.
struct Offsets {
    const Offset *of_query;
    std::uint32_t in_plane;

    SSBHASH_INLINE std::uint32_t operator[](int pick) const { return of_query[pick] | in_plane; }
    SSBHASH_INLINE Offsets &operator+=(std::size_t n_picks) {
        of_query += n_picks;
        return *this;
    }
};

struct alignas(16) Word {
    std::uint32_t part[kLaneRegisters];
};

template <typename Operation>
SSBHASH_INLINE Word each_part(const Operation &operation) {
    Word result;
    SSBHASH_UNROLL(4)
    for (int i = 0; i < kLaneRegisters; ++i)
        result.part[i] = operation(i);
    return result;
}

SSBHASH_INLINE Word broadcast(std::uint32_t x) {
    return each_part([&](int) { return x; });
}
SSBHASH_INLINE Word operator&(const Word &a, const Word &b) {
    return each_part([&](int i) { return a.part[i] & b.part[i]; });
}
SSBHASH_INLINE Word operator|(const Word &a, const Word &b) {
    return each_part([&](int i) { return a.part[i] | b.part[i]; });
}
SSBHASH_INLINE Word operator^(const Word &a, const Word &b) {
    return each_part([&](int i) { return a.part[i] ^ b.part[i]; });
}
SSBHASH_INLINE Word operator~(const Word &a) {
    return each_part([&](int i) { return ~a.part[i]; });
}
SSBHASH_INLINE Word &operator|=(Word &a, const Word &b) { return a = a | b; }
SSBHASH_INLINE Word &operator^=(Word &a, const Word &b) { return a = a ^ b; }

struct Pair {
    Word x, y;
};

SSBHASH_INLINE Pair make_pair(const Word &x, const Word &y) { return {x, y}; }

// The two three-input operations of a full adder: the compiler finds three or more on its own.
SSBHASH_INLINE std::uint32_t sum_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
    std::uint32_t sum;
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
#else
    return a ^ b ^ c;
#endif
}

SSBHASH_INLINE std::uint32_t carry_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
    std::uint32_t carry;
    asm("lop3.b32 %0, %1, %2, %3, 0xe8;" : "=r"(carry) : "r"(a), "r"(b), "r"(c));
    return carry;
#else
    return (a & b) | (c & (a | b));
#endif
}

// z + x + y = new z + 2 * result
SSBHASH_INLINE Word add(Word &z, const Pair &p) {
    const Word carry =
        each_part([&](int i) { return carry_of(p.x.part[i], p.y.part[i], z.part[i]); });
    z = each_part([&](int i) { return sum_of(p.x.part[i], p.y.part[i], z.part[i]); });
    return carry;
}

// z + both pairs = new z + 2 * (the pair returned)
SSBHASH_INLINE Pair add(Word &z, const Pair &p, const Pair &q) {
    const Word a = add(z, p);
    return {a, add(z, q)};
}

// The memory that a launch gave to the block.
__device__ inline std::uint8_t *shared_memory() {
#if defined(__CUDA_EMULATOR__)
    return emulator::shared_memory;
#else
    extern __shared__ uint4 memory[];
    return reinterpret_cast<std::uint8_t *>(memory);
#endif
}

} // namespace
} // namespace ssbhash::cuda::searching

#include "core/search/kernels/wiring.hpp"

#include "core/search/kernels/counter.hpp"
