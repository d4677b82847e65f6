// The k smallest (distance, id) by counting: distances are small integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

struct Neighbour {
    std::int32_t distance;
    std::int64_t id;
};

// Offered in ascending order of id, keeps the k smallest (distance, id).
class TopK {
  public:
    TopK(std::size_t k, std::size_t max_distance)
        : k_(k), limit_(static_cast<std::int32_t>(max_distance) + 1), counts_(max_distance + 1, 0) {
    }

    // Only codes with distance < limit() can still be among the k smallest.
    std::int32_t limit() const { return limit_; }

    void offer(std::int32_t distance, std::int64_t id) {
        if (distance >= limit_)
            return;
        found_.push_back({distance, id});
        ++counts_[static_cast<std::size_t>(distance)];
        for (++below_; below_ >= k_;)
            below_ -= counts_[static_cast<std::size_t>(--limit_)];
        if (found_.size() >= 2 * k_ + 64)
            compact();
    }

    // Drop what cannot be among the k smallest, keeping the order of ids.
    void compact() {
        std::size_t ties = k_ > below_ ? k_ - below_ : 0;
        std::size_t kept = 0;
        for (const Neighbour &one : found_)
            if (one.distance < limit_ || (one.distance == limit_ && ties > 0)) {
                ties -= one.distance == limit_;
                found_[kept++] = one;
            }
        found_.resize(kept);
    }

    const std::vector<Neighbour> &found() {
        compact();
        return found_;
    }

  private:
    std::size_t k_;
    std::int32_t limit_;
    std::size_t below_ = 0; // how many found have distance < limit_
    std::vector<std::size_t> counts_;
    std::vector<Neighbour> found_;
};

} // namespace ssbhash
