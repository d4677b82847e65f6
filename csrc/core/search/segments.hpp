// In how many segments a block is scanned: between two, queries leave whose
// codes have all reached their limit.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace ssbhash {

// Whether to look half-way depends on the codes (uniform ones leave late, learned
// ones early), so it is measured: every kPeriod blocks both ways are timed on a
// few blocks, and the faster serves until the next time. Results do not depend
// on it.
class Segments {
  public:
    explicit Segments(std::size_t n_units);

    // Units of each segment for the next block. Ends the timing of the last one.
    const std::vector<std::size_t> &next();

  private:
    using Clock = std::chrono::steady_clock;

    std::vector<std::size_t> splits_[2]; // few; more, or none where that is no use
    Clock::duration took_[2] = {};
    std::size_t n_blocks_ = 0;
    std::size_t best_ = 0;
    Clock::time_point begin_;
};

} // namespace ssbhash
