#include "core/search/scan.hpp"

#include "core/search/segments.hpp"
#include "core/search/tile.hpp"

#include <algorithm>

namespace ssbhash {
namespace {

constexpr std::size_t kRunBytes = 1 << 16; // rows scanned for one query after another
constexpr std::size_t kMinSample = 1024;

using Sinks = std::vector<Sink *>;

bool fits_tables(const ScanTask &task) {
    return task.queries.n >= task.database.min_table_queries() &&
           units_of(task.queries.n_bytes) <= kMaxUnits &&
           task.end - task.begin >= task.kernels.block_codes;
}

void scan_by_rows(const ScanTask &task, const Sinks &sinks) {
    BlockReader reader(task.database, task.kernels);
    const std::size_t n_bytes = task.queries.n_bytes;
    const std::size_t run = std::max<std::size_t>(256, kRunBytes / n_bytes);
    for (std::size_t first = task.begin; first < task.end; first += run) {
        const Block block = reader.rows(first, std::min(run, task.end - first));
        for (std::size_t q = 0; q < task.queries.n; ++q)
            task.kernels.scan_rows(block, n_bytes, task.queries.row(q), *sinks[q]);
        task.check();
    }
}

void scan_by_tables(const ScanTask &task, const Sinks &sinks, Bounds *bounds) {
    BlockReader reader(task.database, task.kernels);
    QueryTile queries(task.queries, sinks, task.kernels);
    Segments segments(queries.tile().n_units);
    Scratch scratch(task.kernels.scratch_bytes(task.queries.n));
    std::size_t n_blocks = 0;
    for (std::size_t first = task.begin; first < task.end; first += task.kernels.block_codes) {
        if (bounds)
            bounds->choose(first / task.kernels.block_codes, queries.tile());
        if (++n_blocks % 16 == 0)
            task.check();
        if (queries.tile().n_chosen == 0)
            continue;
        const Block block = reader.with_planes(first, task.end);
        reader.prefetch(first + task.kernels.block_codes, task.end);
        const std::vector<std::size_t> &units = segments.next();
        task.kernels.scan_block(queries.tile(), block, units.data(), units.size(), scratch.data());
        if (n_blocks % 16 == 0)
            queries.drop_finished();
    }
}

// Distances of each query to short, evenly spaced runs of allowed codes of the slice.
class Sample {
    static constexpr std::size_t kRun = 16; // codes beside each other in memory cost little

  public:
    Sample(const ScanTask &task, std::size_t n) : task_(task), rows_(n * task.queries.n_bytes) {
        const std::size_t n_bytes = task.queries.n_bytes, step = (task.end - task.begin) / n;
        for (std::size_t i = 0; i < n; ++i) {
            const std::size_t position = task.begin + i / kRun * kRun * step + i % kRun;
            if (task.database.is_allowed(position))
                std::copy_n(task.database.row(position), n_bytes, rows_.data() + n_++ * n_bytes);
        }
        distances_.resize(n_);
    }

    // Returns one more than the k-th distance, or than any distance if there are fewer than k.
    std::int32_t limit(std::size_t query, std::size_t k) {
        const std::size_t n_bits = 8 * task_.queries.n_bytes;
        if (n_ < k)
            return static_cast<std::int32_t>(n_bits) + 1;
        counts_.assign(n_bits + 1, 0);
        task_.kernels.row_distances(rows_.data(), n_, task_.queries.n_bytes,
                                    task_.queries.row(query), distances_.data());
        for (std::uint16_t distance : distances_)
            ++counts_[distance];
        std::size_t distance = 0;
        for (std::size_t below = counts_[0]; below < k;)
            below += counts_[++distance];
        return static_cast<std::int32_t>(distance) + 1;
    }

  private:
    const ScanTask &task_;
    std::size_t n_ = 0;
    Scratch rows_;
    std::vector<std::uint16_t> distances_;
    std::vector<std::uint32_t> counts_;
};

// The k-th distance in a sample is an upper bound of that in all codes.
void set_first_limits(const ScanTask &task, std::size_t k, const Sinks &sinks, Bounds *bounds) {
    const std::size_t n = task.end - task.begin;
    const std::size_t n_sample =
        std::clamp(n / 16, std::min(n, 2 * k), std::max(kMinSample, 16 * k));
    const auto lower = [&](std::size_t q, std::int32_t limit) {
        sinks[q]->limit = std::min(sinks[q]->limit, limit);
    };
    if (bounds) {
        const std::vector<std::int32_t> limits = bounds->first_limits(k, n_sample);
        for (std::size_t q = 0; q < task.queries.n; ++q)
            lower(q, limits[q]);
        return;
    }
    Sample sample(task, n_sample);
    for (std::size_t q = 0; q < task.queries.n; ++q)
        lower(q, sample.limit(q, k));
}

// Counters cannot represent a limit that every code meets. Such queries are scanned by row.
void scan(const ScanTask &task, const Sinks &sinks, Bounds *bounds) {
    const std::size_t n_planes = units_of(task.queries.n_bytes) * kUnitPlanes;
    const bool in_range = std::all_of(sinks.begin(), sinks.end(), [&](const Sink *sink) {
        return sink->limit > 0 && static_cast<std::size_t>(sink->limit) <= n_planes;
    });
    if (in_range && fits_tables(task))
        scan_by_tables(task, sinks, bounds);
    else
        scan_by_rows(task, sinks);
}

std::unique_ptr<Bounds> make_bounds(const ScanTask &task) {
    const Balls *balls = task.database.balls();
    if (!balls || !fits_tables(task))
        return nullptr;
    return std::make_unique<Bounds>(*balls, task.database, task.queries, task.kernels);
}

} // namespace

std::vector<std::unique_ptr<Nearest>> scan_nearest(const ScanTask &task, std::size_t k,
                                                   std::size_t max_distance) {
    const std::size_t n = task.end - task.begin, n_bits = 8 * task.queries.n_bytes;
    std::vector<std::unique_ptr<Nearest>> nearest(task.queries.n);
    Sinks sinks;
    for (auto &one : nearest) {
        one = std::make_unique<Nearest>(k, task.queries.n_bytes, !task.database.balls());
        one->limit = static_cast<std::int32_t>(std::min(max_distance, n_bits)) + 1;
        sinks.push_back(one.get());
    }
    const std::unique_ptr<Bounds> bounds = make_bounds(task);
    if ((bounds || !task.database.balls()) && n >= 16 * k && n >= 2 * task.kernels.block_codes &&
        n_bits <= kMaxUnits * kUnitPlanes)
        set_first_limits(task, k, sinks, bounds.get());
    scan(task, sinks, bounds.get());
    return nearest;
}

void scan_within(const ScanTask &task, const Sinks &sinks) {
    scan(task, sinks, make_bounds(task).get());
}

void scan_pairs(ScanTask task, const Sinks &sinks) {
    BlockReader reader(task.database, task.kernels);
    for (std::size_t q = 0; q + 1 < task.queries.n; ++q) { // the triangle, then the rest
        task.kernels.scan_rows(reader.rows(task.begin + q + 1, task.queries.n - q - 1),
                               task.queries.n_bytes, task.queries.row(q), *sinks[q]);
        if (q % 64 == 0)
            task.check();
    }
    task.begin += task.queries.n;
    scan(task, sinks, nullptr);
}

} // namespace ssbhash
