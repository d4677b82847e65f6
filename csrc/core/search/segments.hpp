// Chooses in how many segments a block is scanned. Between segments a query drops out if all codes
// of the block have reached its limit.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace ssbhash {

// Whether an early check pays depends on the codes: on uniform codes queries drop out late, on
// learned ones early. So it is measured. Every kPeriod blocks both ways are timed on a few blocks,
// and the faster one is used until the next time. Results do not depend on it.
class Segments {
  public:
    explicit Segments(std::size_t n_units);

    // Returns the units of each segment for the next block. Ends the timing of the previous one.
    const std::vector<std::size_t> &next();

  private:
    using Clock = std::chrono::steady_clock;

    std::vector<std::size_t> splits_[2]; // few segments; more of them, empty if that is no use
    Clock::duration took_[2] = {};
    std::size_t n_blocks_ = 0;
    std::size_t best_ = 0;
    Clock::time_point begin_;
};

} // namespace ssbhash
