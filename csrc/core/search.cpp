#include "core/search.hpp"

#include "core/dispatch.hpp"
#include "core/threads.hpp"
#include "core/top_k.hpp"

#include <algorithm>
#include <array>

namespace ssbhash {
namespace {

constexpr std::size_t kTile = 1024; // codes whose distances are computed at once

// Call visit(first_id, distances, count) for each tile of codes [begin, end).
template <typename Visit>
void for_tiles(const Codes &database, const std::uint8_t *query, std::size_t begin, std::size_t end,
               Visit &&visit) {
    const Kernels &kernels = active_kernels();
    std::array<std::int32_t, kTile> tile;
    for (std::size_t first = begin; first < end; first += kTile) {
        const std::size_t count = std::min(kTile, end - first);
        kernels.row_distances(database.row(first), count, database.n_bytes, query, tile.data());
        visit(first, tile.data(), count);
    }
}

// Stable: equal distances keep their order, which is that of ids.
void sort_by_distance(std::vector<Neighbour> &found) {
    std::stable_sort(found.begin(), found.end(), [](const Neighbour &a, const Neighbour &b) {
        return a.distance < b.distance;
    });
}

std::vector<Neighbour> nearest(const Codes &database, const std::uint8_t *query, std::size_t k,
                               std::size_t begin, std::size_t end) {
    TopK top(k, database.n_bytes * 8);
    for_tiles(database, query, begin, end,
              [&](std::size_t first, const std::int32_t *tile, std::size_t count) {
                  for (std::size_t i = 0; i < count; ++i)
                      if (tile[i] < top.limit())
                          top.offer(tile[i], static_cast<std::int64_t>(first + i));
              });
    return top.found();
}

std::vector<Neighbour> all_within(const Codes &database, const std::uint8_t *query,
                                  std::size_t radius, std::size_t begin, std::size_t end) {
    std::vector<Neighbour> found;
    const auto limit = static_cast<std::int32_t>(std::min(radius, database.n_bytes * 8));
    for_tiles(database, query, begin, end,
              [&](std::size_t first, const std::int32_t *tile, std::size_t count) {
                  for (std::size_t i = 0; i < count; ++i)
                      if (tile[i] <= limit)
                          found.push_back({tile[i], static_cast<std::int64_t>(first + i)});
              });
    return found;
}

// Queries are split when there are enough of them, else codes too: parts[q *
// n_slices + s] is what `scan` found for query q in slice s.
struct Parts {
    std::size_t n_slices;
    std::vector<std::vector<Neighbour>> parts;

    std::vector<Neighbour> merged(std::size_t query) {
        std::vector<Neighbour> all = std::move(parts[query * n_slices]);
        for (std::size_t s = 1; s < n_slices; ++s) {
            const auto &more = parts[query * n_slices + s];
            all.insert(all.end(), more.begin(), more.end());
        }
        sort_by_distance(all);
        return all;
    }
};

template <typename Scan>
Parts scan_all(const Codes &database, const Codes &queries, const Schedule &schedule, Scan &&scan) {
    std::size_t n_slices = 1;
    if (queries.n < 2 * schedule.n_threads)
        n_slices = std::clamp<std::size_t>(database.n / 65536, 1, 2 * schedule.n_threads);
    const std::size_t slice = (database.n + n_slices - 1) / n_slices;
    Parts result{n_slices, std::vector<std::vector<Neighbour>>(queries.n * n_slices)};
    parallel_for(
        result.parts.size(), schedule.n_threads,
        [&](std::size_t i) {
            const std::size_t begin = std::min(i % n_slices * slice, database.n);
            result.parts[i] =
                scan(queries.row(i / n_slices), begin, std::min(begin + slice, database.n));
        },
        schedule.poll);
    return result;
}

} // namespace

void search(const Codes &database, const Codes &queries, std::size_t k, const Schedule &schedule,
            std::int32_t *out_distances, std::int64_t *out_ids) {
    if (k == 0)
        return;
    Parts parts = scan_all(database, queries, schedule,
                           [&](const std::uint8_t *query, std::size_t begin, std::size_t end) {
                               return nearest(database, query, k, begin, end);
                           });
    for (std::size_t q = 0; q < queries.n; ++q) {
        const std::vector<Neighbour> found = parts.merged(q);
        for (std::size_t i = 0; i < k; ++i) {
            out_distances[q * k + i] = found[i].distance;
            out_ids[q * k + i] = found[i].id;
        }
    }
}

Range within(const Codes &database, const Codes &queries, std::size_t radius,
             const Schedule &schedule) {
    Parts parts = scan_all(database, queries, schedule,
                           [&](const std::uint8_t *query, std::size_t begin, std::size_t end) {
                               return all_within(database, query, radius, begin, end);
                           });
    Range range;
    range.lims.push_back(0);
    for (std::size_t q = 0; q < queries.n; ++q) {
        for (const Neighbour &one : parts.merged(q)) {
            range.distances.push_back(one.distance);
            range.ids.push_back(one.id);
        }
        range.lims.push_back(static_cast<std::int64_t>(range.ids.size()));
    }
    return range;
}

void distances(const Codes &database, const Codes &queries, const Schedule &schedule,
               std::uint16_t *out) {
    parallel_for(
        queries.n, schedule.n_threads,
        [&](std::size_t q) {
            for_tiles(database, queries.row(q), 0, database.n,
                      [&](std::size_t first, const std::int32_t *tile, std::size_t count) {
                          for (std::size_t i = 0; i < count; ++i)
                              out[q * database.n + first + i] = static_cast<std::uint16_t>(tile[i]);
                      });
        },
        schedule.poll);
}

} // namespace ssbhash
