#include "core/search/search.hpp"

#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/search/scan.hpp"

#include <algorithm>
#include <atomic>

namespace ssbhash {
namespace {

constexpr std::size_t kTileQueries = 1024;
constexpr std::size_t kTileBytes = std::size_t{64} << 20; // for what is found
constexpr std::size_t kMinSlice = 1 << 16;                // codes worth a thread

// Queries are split into tiles; where there are fewer tiles than threads, the
// codes are split into slices too.
struct Plan {
    std::size_t tile, n_tiles;
    std::size_t slice, n_slices;

    Plan(std::size_t n_queries, std::size_t n, std::size_t k, std::size_t n_threads,
         std::size_t block_codes) {
        const std::size_t bytes = (2 * k + 64) * sizeof(Neighbour);
        tile = std::clamp<std::size_t>(kTileBytes / bytes, 1, kTileQueries);
        if (n_queries >= 256 * n_threads) // enough to share tables among
            tile = std::min(tile, (n_queries + n_threads - 1) / n_threads);
        n_tiles = (n_queries + tile - 1) / tile;
        n_slices = 1;
        if (n_tiles < 2 * n_threads && n_threads > 1 && n_tiles % n_threads != 0)
            n_slices = std::clamp<std::size_t>(n / kMinSlice, 1, n_threads);
        slice = (n + n_slices - 1) / n_slices;
        slice = std::max<std::size_t>(1, (slice + block_codes - 1) / block_codes) * block_codes;
        n_slices = std::max<std::size_t>(1, (n + slice - 1) / slice);
    }
};

// What each tile found, slice after slice; done(first_query, findings...) is
// called once for each tile.
template <typename Scan, typename Done>
void scan_all(const Database &database, const Codes &queries, std::size_t k,
              const Schedule &schedule, Scan &&scan, Done &&done) {
    const SearchKernels &kernels = active_isa().search;
    const Plan plan(queries.n, database.n(), k, schedule.n_threads, kernels.block_codes);
    Database in_order = database; // few queries are scanned by row, best from end to end
    if (database.balls())
        in_order.planes = nullptr;
    std::vector<FindingsList> parts(plan.n_tiles * plan.n_slices);
    std::vector<std::atomic<std::size_t>> missing(plan.n_tiles);
    for (auto &one : missing)
        one = plan.n_slices;
    parallel_for(
        parts.size(), schedule.n_threads,
        [&](std::size_t i, const std::function<void()> &check) {
            const std::size_t t = i / plan.n_slices, s = i % plan.n_slices;
            const std::size_t first = t * plan.tile;
            const Codes some{queries.row(first), std::min(plan.tile, queries.n - first),
                             queries.n_bytes};
            const std::size_t begin = s * plan.slice;
            const Database &rows = some.n < kMinPreparedQueries ? in_order : database;
            parts[i] = scan(ScanTask{rows, some, begin, std::min(begin + plan.slice, database.n()),
                                     kernels, check});
            if (--missing[t] == 0)
                done(first, parts.data() + t * plan.n_slices, plan.n_slices);
        },
        schedule.poll);
}

// One query's findings of all slices, ascending by (distance, id).
std::vector<Neighbour> merged(FindingsList *slices, std::size_t n_slices, std::size_t query,
                              std::size_t max_distance) {
    const bool by_id = slices[0][query]->by_id;
    std::vector<Neighbour> all = slices[0][query]->take();
    for (std::size_t s = 1; s < n_slices; ++s) {
        const std::vector<Neighbour> more = slices[s][query]->take();
        all.insert(all.end(), more.begin(), more.end());
    }
    for (std::size_t s = 0; s < n_slices; ++s)
        slices[s][query].reset();
    if (by_id)
        sort_by_distance(all, max_distance);
    else
        sort_by_distance_id(all);
    return all;
}

} // namespace

void search(const Database &database, const Codes &queries, std::size_t k, const Schedule &schedule,
            std::int32_t *out_distances, std::int64_t *out_ids) {
    if (k == 0 || queries.n == 0)
        return;
    scan_all(
        database, queries, k, schedule,
        [&](const ScanTask &task) {
            return scan_nearest(task, std::min(k, task.end - task.begin));
        },
        [&](std::size_t first, FindingsList *slices, std::size_t n_slices) {
            for (std::size_t q = 0; q < slices[0].size(); ++q) {
                const auto found = merged(slices, n_slices, q, 8 * queries.n_bytes);
                for (std::size_t i = 0; i < k; ++i) {
                    out_distances[(first + q) * k + i] = found[i].distance;
                    out_ids[(first + q) * k + i] = found[i].id;
                }
            }
        });
}

Range within(const Database &database, const Codes &queries, std::size_t radius,
             const Schedule &schedule) {
    std::vector<std::vector<Neighbour>> found(queries.n);
    if (queries.n > 0)
        scan_all(
            database, queries, 0, schedule,
            [&](const ScanTask &task) { return scan_within(task, radius); },
            [&](std::size_t first, FindingsList *slices, std::size_t n_slices) {
                for (std::size_t q = 0; q < slices[0].size(); ++q)
                    found[first + q] = merged(slices, n_slices, q, 8 * queries.n_bytes);
            });
    Range range;
    range.lims.push_back(0);
    for (const auto &one : found)
        range.lims.push_back(range.lims.back() + static_cast<std::int64_t>(one.size()));
    range.distances.reserve(static_cast<std::size_t>(range.lims.back()));
    range.ids.reserve(static_cast<std::size_t>(range.lims.back()));
    for (auto &one : found) {
        for (const Neighbour &neighbour : one) {
            range.distances.push_back(neighbour.distance);
            range.ids.push_back(neighbour.id);
        }
        std::vector<Neighbour>().swap(one);
    }
    return range;
}

Pairs pairs_within(const Codes &codes, std::size_t radius, const Schedule &schedule) {
    const SearchKernels &kernels = active_isa().search;
    const Database database{codes};
    const std::size_t tile = std::max(kTileQueries, kernels.block_codes);
    std::vector<FindingsList> found((codes.n + tile - 1) / tile);
    parallel_for(
        found.size(), schedule.n_threads,
        [&](std::size_t t, const Check &check) {
            const std::size_t begin = t * tile, n = std::min(tile, codes.n - begin);
            found[t] = scan_pairs(
                {database, {codes.row(begin), n, codes.n_bytes}, begin, codes.n, kernels, check},
                radius);
        },
        schedule.poll);
    Pairs pairs;
    for (std::size_t t = 0; t < found.size(); ++t)
        for (std::size_t i = 0; i < found[t].size(); ++i) {
            for (const Neighbour &one : found[t][i]->take()) {
                pairs.first.push_back(static_cast<std::int64_t>(t * tile + i));
                pairs.second.push_back(one.id);
                pairs.distances.push_back(one.distance);
            }
            found[t][i].reset();
        }
    return pairs;
}

void distances(const Codes &database, const Codes &queries, const Schedule &schedule,
               std::uint16_t *out) {
    const SearchKernels &kernels = active_isa().search;
    constexpr std::size_t run = 1 << 16;
    const std::size_t n_runs = (database.n + run - 1) / run;
    parallel_for(
        queries.n * n_runs, schedule.n_threads,
        [&](std::size_t i, const std::function<void()> &) {
            const std::size_t q = i / n_runs, first = i % n_runs * run;
            kernels.row_distances(database.row(first), std::min(run, database.n - first),
                                  database.n_bytes, queries.row(q), out + q * database.n + first);
        },
        schedule.poll);
}

} // namespace ssbhash
