// Memory for words: aligned to the widest of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace ssbhash {

template <typename T>
struct AlignedAllocator {
    using value_type = T;
    static constexpr std::align_val_t kAlignment{64};

    AlignedAllocator() = default;
    template <typename U>
    AlignedAllocator(const AlignedAllocator<U> &) {}

    T *allocate(std::size_t n) {
        if (n > static_cast<std::size_t>(-1) / sizeof(T))
            throw std::bad_array_new_length();
        return static_cast<T *>(::operator new(n * sizeof(T), kAlignment));
    }
    void deallocate(T *p, std::size_t) { ::operator delete(p, kAlignment); }

    // Scratch is written before it is read: leave it as it is.
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
