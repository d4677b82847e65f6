#include "core/search/top_k.hpp"

#include <algorithm>
#include <limits>

namespace ssbhash {

namespace {

bool is_before(const Neighbour &a, const Neighbour &b) {
    return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
}

} // namespace

Findings::Findings(std::size_t k, std::size_t n_bytes, std::int32_t limit, bool by_id)
    : Sink{limit, k, by_id,     std::numeric_limits<std::int64_t>::max(), 0, nullptr, nullptr,
           0,     0, &make_room},
      counts_(k ? 8 * n_bytes + 1 : 0), found_(k ? 2 * k + 64 : 0) {
    counts = counts_.data();
    found = found_.data();
    capacity = found_.size();
}

void Findings::make_room(Sink &sink) {
    auto &self = static_cast<Findings &>(sink);
    if (sink.k > 0) {
        self.compact(); // leaves at most k
        return;
    }
    self.found_.resize(std::max<std::size_t>(64, 2 * self.found_.size()));
    sink.found = self.found_.data();
    sink.capacity = self.found_.size();
}

// Drop what cannot be among the k smallest.
void Findings::compact() {
    if (by_id)
        return compact_by_id();
    if (n_found < k)
        return;
    // The limit has never fallen, or only to where k found lie below: the k-th is at limit - 1.
    Neighbour *kth = found + k - 1;
    std::nth_element(found, kth, found + n_found, is_before);
    counts[limit - 1] -= static_cast<std::uint32_t>(below - k);
    below = n_found = k;
    last_id = kth->id;
}

// The same in one pass, keeping the order of ids.
void Findings::compact_by_id() {
    std::size_t ties = k - below; // below < k
    std::size_t kept = 0;
    for (std::size_t i = 0; i < n_found; ++i) {
        const Neighbour one = found[i];
        if (one.distance > limit || (one.distance == limit && ties == 0))
            continue;
        ties -= one.distance == limit;
        found[kept++] = one;
    }
    n_found = kept;
}

std::vector<Neighbour> Findings::take() {
    if (k > 0)
        compact();
    found_.resize(n_found);
    return std::move(found_);
}

void sort_by_distance_id(std::vector<Neighbour> &found) {
    std::sort(found.begin(), found.end(), is_before);
}

void sort_by_distance(std::vector<Neighbour> &found, std::size_t max_distance) {
    if (found.size() < 2)
        return;
    std::vector<std::size_t> next(max_distance + 2, 0);
    for (const Neighbour &one : found)
        ++next[static_cast<std::size_t>(one.distance) + 1];
    for (std::size_t d = 1; d < next.size(); ++d)
        next[d] += next[d - 1];
    std::vector<Neighbour> sorted(found.size());
    for (const Neighbour &one : found)
        sorted[next[static_cast<std::size_t>(one.distance)]++] = one;
    found.swap(sorted);
}

} // namespace ssbhash
