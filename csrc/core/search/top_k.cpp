#include "core/search/top_k.hpp"

#include <algorithm>

namespace ssbhash {

namespace {

bool is_before(const Neighbour &a, const Neighbour &b) {
    return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
}

} // namespace

Nearest::Nearest(std::size_t k_wanted, std::size_t n_bytes, bool ids_ascend)
    : Sink{static_cast<std::int32_t>(8 * n_bytes + 1), &compact, k_wanted, ids_ascend},
      counts_(8 * n_bytes + 1), found_(2 * k_wanted + 64) {
    counts = counts_.data();
    found = found_.data();
    capacity = found_.size();
}

// Keeps at most k.
void Nearest::compact(Sink &sink) {
    auto &self = static_cast<Nearest &>(sink);
    if (self.by_id)
        self.drop_surplus_by_id();
    else
        self.drop_surplus();
}

void Nearest::drop_surplus() {
    if (n_found < k)
        return;
    // Either the limit never fell, or k of those found are below it and the k-th is at limit - 1.
    Neighbour *kth = found + k - 1;
    std::nth_element(found, kth, found + n_found, is_before);
    counts[limit - 1] -= static_cast<std::uint32_t>(below - k);
    below = n_found = k;
    last_id = kth->id;
}

// The same in one pass, which keeps the order of ids.
void Nearest::drop_surplus_by_id() {
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

std::vector<Neighbour> Nearest::take() {
    compact(*this);
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

void write_smallest(std::vector<Neighbour> &found, bool by_id, std::size_t max_distance,
                    std::size_t k, std::int32_t *distances, std::int64_t *ids) {
    if (by_id) {
        sort_by_distance(found, max_distance);
    } else {
        if (found.size() > k) {
            std::nth_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(k),
                             found.end(), is_before);
            found.resize(k);
        }
        sort_by_distance_id(found);
    }
    for (std::size_t i = 0; i < k; ++i) {
        const Neighbour &one = i < found.size() ? found[i] : kMissing;
        distances[i] = one.distance;
        ids[i] = one.id;
    }
}

} // namespace ssbhash
