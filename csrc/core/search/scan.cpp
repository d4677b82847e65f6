#include "core/search/scan.hpp"

#include "core/search/segments.hpp"
#include "core/search/tile.hpp"

#include <algorithm>

namespace ssbhash {
namespace {

constexpr std::size_t kRunBytes = 1 << 16; // rows scanned for one query after another
constexpr std::size_t kMinSample = 1024;

bool fits_tables(const ScanTask &task) {
    const bool prepared = task.database.planes && !task.database.ids;
    return task.queries.n >= (prepared ? kMinPreparedQueries : kMinTableQueries) &&
           units_of(task.queries.n_bytes) <= kMaxUnits &&
           task.end - task.begin >= task.kernels.block_codes;
}

void scan_by_rows(const ScanTask &task, FindingsList &findings) {
    BlockReader reader(task.database, task.kernels);
    const std::size_t n_bytes = task.queries.n_bytes;
    const std::size_t run = std::max<std::size_t>(256, kRunBytes / n_bytes);
    for (std::size_t first = task.begin; first < task.end; first += run) {
        const Block block = reader.rows(first, std::min(run, task.end - first));
        for (std::size_t q = 0; q < task.queries.n; ++q)
            task.kernels.scan_rows(block, n_bytes, task.queries.row(q), *findings[q]);
        task.check();
    }
}

void scan_by_tables(const ScanTask &task, FindingsList &findings, Bounds *bounds) {
    BlockReader reader(task.database, task.kernels);
    QueryTile queries(task.queries, findings, task.kernels);
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

// Distances of each query to short runs of codes from all over the slice.
class Sample {
    static constexpr std::size_t kRun = 16; // neighbours in memory come at little cost

  public:
    Sample(const ScanTask &task, std::size_t n)
        : task_(task), n_(n), rows_(n * task.queries.n_bytes), distances_(n) {
        const std::size_t n_bytes = task.queries.n_bytes, step = (task.end - task.begin) / n;
        for (std::size_t i = 0; i < n; ++i)
            std::copy_n(task.database.row(task.begin + i / kRun * kRun * step + i % kRun), n_bytes,
                        rows_.data() + i * n_bytes);
    }

    const std::vector<std::uint32_t> &counts(std::size_t query) {
        counts_.assign(8 * task_.queries.n_bytes + 1, 0);
        task_.kernels.row_distances(rows_.data(), n_, task_.queries.n_bytes,
                                    task_.queries.row(query), distances_.data());
        for (std::uint16_t distance : distances_)
            ++counts_[distance];
        return counts_;
    }

  private:
    const ScanTask &task_;
    std::size_t n_;
    Scratch rows_;
    std::vector<std::uint16_t> distances_;
    std::vector<std::uint32_t> counts_;
};

// The k-th distance of a sample bounds that of the whole.
void set_first_limits(const ScanTask &task, std::size_t k, FindingsList &findings, Bounds *bounds) {
    const std::size_t n = task.end - task.begin;
    const std::size_t n_sample =
        std::clamp(n / 16, std::min(n, 2 * k), std::max(kMinSample, 16 * k));
    if (bounds) {
        for (std::size_t q = 0; q < task.queries.n; ++q)
            findings[q]->limit = bounds->first_limit(q, k, n_sample);
        return;
    }
    Sample sample(task, n_sample);
    for (std::size_t q = 0; q < task.queries.n; ++q) {
        const std::vector<std::uint32_t> &counts = sample.counts(q);
        std::size_t distance = 0;
        for (std::size_t below = counts[0]; below < k;)
            below += counts[++distance];
        findings[q]->limit = static_cast<std::int32_t>(distance) + 1;
    }
}

// Counters cannot hold a limit that every code meets: such queries go by row.
void scan(const ScanTask &task, FindingsList &findings, Bounds *bounds) {
    const std::size_t n_planes = units_of(task.queries.n_bytes) * kUnitPlanes;
    const bool in_range = std::all_of(findings.begin(), findings.end(), [&](const auto &one) {
        return one->limit > 0 && static_cast<std::size_t>(one->limit) <= n_planes;
    });
    if (in_range && fits_tables(task))
        scan_by_tables(task, findings, bounds);
    else
        scan_by_rows(task, findings);
}

std::unique_ptr<Bounds> make_bounds(const ScanTask &task) {
    const Balls *balls = task.database.balls();
    if (!balls || !fits_tables(task))
        return nullptr;
    return std::make_unique<Bounds>(*balls, task.database.codes, task.queries, task.kernels);
}

FindingsList make_findings(const ScanTask &task, std::size_t k, std::size_t limit) {
    FindingsList findings(task.queries.n);
    for (auto &one : findings)
        one = std::make_unique<Findings>(k, task.queries.n_bytes, static_cast<std::int32_t>(limit),
                                         task.database.balls() == nullptr);
    return findings;
}

} // namespace

FindingsList scan_nearest(const ScanTask &task, std::size_t k) {
    const std::size_t n = task.end - task.begin, n_bits = 8 * task.queries.n_bytes;
    FindingsList findings = make_findings(task, k, n_bits + 1);
    const std::unique_ptr<Bounds> bounds = make_bounds(task);
    if ((bounds || !task.database.balls()) && n >= 16 * k && n >= 2 * task.kernels.block_codes &&
        n_bits <= kMaxUnits * kUnitPlanes)
        set_first_limits(task, k, findings, bounds.get());
    scan(task, findings, bounds.get());
    return findings;
}

FindingsList scan_within(const ScanTask &task, std::size_t radius) {
    FindingsList findings = make_findings(task, 0, std::min(radius, 8 * task.queries.n_bytes) + 1);
    scan(task, findings, make_bounds(task).get());
    return findings;
}

FindingsList scan_pairs(ScanTask task, std::size_t radius) {
    FindingsList findings = make_findings(task, 0, std::min(radius, 8 * task.queries.n_bytes) + 1);
    BlockReader reader(task.database, task.kernels);
    for (std::size_t q = 0; q + 1 < task.queries.n; ++q) // the triangle, then the rest
        task.kernels.scan_rows(reader.rows(task.begin + q + 1, task.queries.n - q - 1),
                               task.queries.n_bytes, task.queries.row(q), *findings[q]);
    task.begin += task.queries.n;
    scan(task, findings, nullptr);
    return findings;
}

} // namespace ssbhash
