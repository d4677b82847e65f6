#include "core/search/search.hpp"

#include "core/search/plan.hpp"

#include <algorithm>

namespace ssbhash {
namespace {

constexpr std::size_t kRun = 1 << 16; // rows in a task

using NearestList = std::vector<std::unique_ptr<Nearest>>;

} // namespace

void search(const Database &database, const Codes &queries, std::size_t k, const Schedule &schedule,
            std::int32_t *out_distances, std::int64_t *out_ids, std::size_t max_distance) {
    if (k == 0 || queries.n == 0)
        return;
    const auto scan = [&](const ScanTask &task, std::size_t) {
        return scan_nearest(task, std::min(k, task.end - task.begin), max_distance);
    };
    const auto done = [&](std::size_t first, std::vector<NearestList> slices, const Check &check) {
        for (std::size_t q = 0; q < slices[0].size(); ++q) {
            const bool by_id = slices[0][q]->by_id;
            std::vector<Neighbour> all;
            for (NearestList &slice : slices) {
                const std::vector<Neighbour> some = slice[q]->take();
                all.insert(all.end(), some.begin(), some.end());
                slice[q].reset();
            }
            write_smallest(all, by_id, 8 * queries.n_bytes, k, out_distances + (first + q) * k,
                           out_ids + (first + q) * k);
            if (q % 16 == 0)
                check();
        }
    };
    scan_all<NearestList>(database, queries, (2 * k + 64) * sizeof(Neighbour), schedule, scan,
                          done);
}

void merge(const std::vector<Ranking> &parts, std::size_t n_queries, std::size_t k,
           const Schedule &schedule, std::int32_t *out_distances, std::int64_t *out_ids) {
    constexpr std::size_t run = 256; // queries in a task
    const auto task = [&](std::size_t i, const Check &check) {
        std::vector<Neighbour> all;
        for (std::size_t q = i * run; q < std::min((i + 1) * run, n_queries); ++q) {
            all.clear();
            for (const Ranking &part : parts)
                for (std::size_t j = q * part.k; j < (q + 1) * part.k; ++j)
                    if (part.ids[j] >= 0)
                        all.push_back({part.distances[j], part.ids[j]});
            write_smallest(all, false, 0, k, out_distances + q * k, out_ids + q * k);
            check();
        }
    };
    parallel_for((n_queries + run - 1) / run, schedule.n_threads, task, schedule.poll);
}

void distances(const Codes &database, const Codes &queries, const Schedule &schedule,
               std::uint16_t *out) {
    const SearchKernels &kernels = active_isa().search;
    const std::size_t n_runs = (database.n + kRun - 1) / kRun;
    const auto task = [&](std::size_t i, const Check &) {
        const std::size_t q = i / n_runs, first = i % n_runs * kRun;
        kernels.row_distances(database.row(first), std::min(kRun, database.n - first),
                              database.n_bytes, queries.row(q), out + q * database.n + first);
    };
    parallel_for(queries.n * n_runs, schedule.n_threads, task, schedule.poll);
}

void paired_distances(const Codes &first, const Codes &second, const Schedule &schedule,
                      std::uint16_t *out) {
    const SearchKernels &kernels = active_isa().search;
    const auto task = [&](std::size_t i, const Check &) {
        for (std::size_t row = i * kRun; row < std::min((i + 1) * kRun, first.n); ++row)
            kernels.row_distances(first.row(row), 1, first.n_bytes, second.row(row), out + row);
    };
    parallel_for((first.n + kRun - 1) / kRun, schedule.n_threads, task, schedule.poll);
}

} // namespace ssbhash
