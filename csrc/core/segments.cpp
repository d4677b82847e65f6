#include "core/segments.hpp"

namespace ssbhash {
namespace {

constexpr std::size_t kSegmentUnits = 8; // a table of 16 KiB at 256 bits stays in L1
constexpr std::size_t kPeriod = 512;     // blocks
constexpr std::size_t kTrial = 4;

} // namespace

Segments::Segments(std::size_t n_units) {
    if (n_units == 4 || n_units == 8)
        splits_[1] = {n_units / 2, n_units / 2};
    for (; n_units > kSegmentUnits; n_units -= kSegmentUnits)
        splits_[0].push_back(kSegmentUnits);
    splits_[0].push_back(n_units);
}

const std::vector<std::size_t> &Segments::next() {
    const std::size_t phase = n_blocks_++ % kPeriod;
    if (splits_[1].empty() || phase > 2 * kTrial)
        return splits_[best_];
    if (phase % kTrial == 0) { // a trial ends, another begins
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
