// Products whose left side has many zeros: of a rectified layer half are.
#pragma once

#include "core/base/aligned.hpp"
#include "core/training/product.hpp"

#include <cstdint>

namespace ssbhash {

// The entries of a matrix [m, k] that are not zero, row by row.
class NonZeros {
  public:
    // Take those of a matrix whose rows or columns lie together.
    void gather(const Strided &matrix, std::size_t m, std::size_t k);

    // out [m, n_columns], rows so far apart, = this times a panel of kSparseColumns at most.
    void multiply(const Panel &panel, float *out, std::size_t out_row) const;

    // out [m, n] = this times right [k, n], whose rows or columns lie together.
    void multiply(const Strided &right, std::size_t n, float *out, std::size_t n_threads) const;

  private:
    template <typename T>
    using Memory = std::vector<T, AlignedAllocator<T>>;

    // By chunks of kSparseDepth of k: [chunk, m, kSparseDepth], and counts [chunk, m].
    Memory<float> values_;
    Memory<std::uint8_t> places_;
    Memory<std::uint32_t> counts_;
    Memory<float> transposed_;
    std::size_t m_ = 0, k_ = 0;
};

} // namespace ssbhash
