#include "core/search/segments.hpp"

#include "core/search/search_kernels.hpp"

namespace ssbhash {
namespace {

// 256 bits in one segment: 3.6 G codes/s with 1,024 queries. Two segments of 128 bits give 3.4:
// their table of 16 KiB fits the first-level cache, but counters are stored between segments.
constexpr std::size_t kLongUnits = kMaxSegmentUnits;
constexpr std::size_t kShortUnits = 8;
constexpr std::size_t kPeriod = 512; // blocks
constexpr std::size_t kTrial = 4;

std::vector<std::size_t> split(std::size_t n_units, std::size_t most) {
    std::vector<std::size_t> units;
    for (; n_units > most; n_units -= most)
        units.push_back(most);
    units.push_back(n_units);
    return units;
}

} // namespace

Segments::Segments(std::size_t n_units) : splits_{split(n_units, kLongUnits)} {
    if (n_units == 4 || n_units == kMaxHalvedUnits)
        splits_[1] = split(n_units, n_units / 2);
    else if (n_units > kMaxHalvedUnits)
        splits_[1] = split(n_units, kShortUnits);
}

const std::vector<std::size_t> &Segments::next() {
    const std::size_t phase = n_blocks_++ % kPeriod;
    if (splits_[1].empty() || phase > 2 * kTrial)
        return splits_[best_];
    if (phase % kTrial == 0) { // one trial ends, the next begins
        const Clock::time_point now = Clock::now();
        if (phase > 0)
            took_[phase / kTrial - 1] = now - begin_;
        begin_ = now;
    }
    if (phase < 2 * kTrial)
        return splits_[phase / kTrial];
    best_ = took_[1] < took_[0];
    return splits_[best_];
}

} // namespace ssbhash
