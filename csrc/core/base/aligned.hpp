// Memory for vector words: aligned to the widest, and in large pages from 2 MiB on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ssbhash {

template <typename T>
struct AlignedAllocator {
    using value_type = T;
    static constexpr std::size_t kLargePage = std::size_t{1} << 21;

    // Scans of a large buffer in pages of 4 KiB would miss the TLB at every page.
    static std::align_val_t alignment(std::size_t n) {
        return std::align_val_t{n * sizeof(T) < kLargePage ? 64 : kLargePage};
    }

    AlignedAllocator() = default;
    template <typename U>
    AlignedAllocator(const AlignedAllocator<U> &) {}

    T *allocate(std::size_t n) {
        if (n > static_cast<std::size_t>(-1) / sizeof(T))
            throw std::bad_array_new_length();
        void *memory = ::operator new(n * sizeof(T), alignment(n));
#ifdef MADV_HUGEPAGE
        if (n * sizeof(T) >= kLargePage)
            madvise(memory, n * sizeof(T), MADV_HUGEPAGE);
#endif
        return static_cast<T *>(memory);
    }
    void deallocate(T *p, std::size_t n) { ::operator delete(p, alignment(n)); }

    // Scratch is written before it is read, so it is not initialised.
    template <typename U>
    void construct(U *p) {
        ::new (static_cast<void *>(p)) U;
    }
    template <typename U, typename... Arguments>
    void construct(U *p, Arguments &&...arguments) {
        ::new (static_cast<void *>(p)) U(static_cast<Arguments &&>(arguments)...);
    }

    template <typename U>
    bool operator==(const AlignedAllocator<U> &) const {
        return true;
    }
};

using Scratch = std::vector<std::uint8_t, AlignedAllocator<std::uint8_t>>;

} // namespace ssbhash
