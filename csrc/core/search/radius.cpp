#include "core/search/radius.hpp"

#include "core/search/plan.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>

namespace ssbhash {
namespace {

// Results that are kept in the first scan, of 16 bytes each.
constexpr std::size_t kKept = std::size_t{1} << 20;
constexpr std::size_t kBuffer = 64;
constexpr std::size_t kTileRows = 1024;

std::int32_t limit_of(std::int64_t radius, std::size_t n_bytes) {
    return static_cast<std::int32_t>(std::min(radius, static_cast<std::int64_t>(8 * n_bytes))) + 1;
}

// Counts how many results may still be kept; all queries of a call share it.
class Allowance {
  public:
    explicit Allowance(std::size_t n) : left_(static_cast<std::int64_t>(n)) {}

    bool take(std::size_t n) {
        if ((left_ -= static_cast<std::int64_t>(n)) >= 0)
            return true;
        left_ += static_cast<std::int64_t>(n);
        return false;
    }

  private:
    std::atomic<std::int64_t> left_;
};

// Keeps what a query finds while the allowance lasts; then counts it by distance.
class Counter : public Sink {
  public:
    Counter(std::int32_t distance_limit, Allowance &allowance)
        : Sink{distance_limit, &count_or_grow}, allowance_(allowance) {}

    bool is_whole() const { return counts_.empty(); }
    std::vector<Neighbour> take() {
        found_.resize(n_found);
        return std::move(found_);
    }

    // The number of results at each distance below the limit.
    std::vector<std::uint64_t> take_counts() {
        if (is_whole())
            counts_.resize(static_cast<std::size_t>(limit));
        count();
        return std::move(counts_);
    }

  private:
    static void count_or_grow(Sink &sink) {
        auto &self = static_cast<Counter &>(sink);
        if (self.is_whole() && self.allowance_.take(std::max(kBuffer, self.capacity)))
            return self.resize(std::max(kBuffer, 2 * self.capacity));
        if (self.is_whole())
            self.counts_.resize(static_cast<std::size_t>(self.limit));
        self.count();
        self.resize(kBuffer);
    }

    void resize(std::size_t n) {
        found_.resize(n);
        found = found_.data();
        capacity = n;
    }

    void count() {
        for (std::size_t i = 0; i < n_found; ++i)
            ++counts_[static_cast<std::size_t>(found[i].distance)];
        n_found = 0;
    }

    Allowance &allowance_;
    std::vector<Neighbour> found_;
    std::vector<std::uint64_t> counts_;
};

// Writes what a query finds, in ascending order of id, to one run of memory for each distance, or
// to one for all. Rows may have changed since they were counted: a run that is too short takes no
// more, and one that is too long ends with kMissing.
class Placer : public Sink {
  public:
    Placer(std::int32_t distance_limit, std::int32_t *to_distances, std::int64_t *to_ids)
        : Sink{distance_limit, &flush}, distances_(to_distances), ids_(to_ids) {
        found = buffer_;
        capacity = kBuffer;
    }

    // One run for each distance.
    void set_runs(const std::vector<std::uint64_t> &counts) {
        for (const std::uint64_t count : counts) {
            next_.push_back(end_.empty() ? 0 : end_.back());
            end_.push_back(next_.back() + count);
        }
    }
    void set_run(std::uint64_t count) {
        next_ = {0};
        end_ = {count};
    }

    void finish() {
        flush(*this);
        for (std::size_t run = 0; run < next_.size(); ++run)
            while (next_[run] < end_[run])
                write(run, kMissing);
    }

  private:
    static void flush(Sink &sink) {
        auto &self = static_cast<Placer &>(sink);
        for (std::size_t i = 0; i < self.n_found; ++i) {
            const Neighbour &one = self.buffer_[i];
            const std::size_t run =
                self.next_.size() == 1 ? 0 : static_cast<std::size_t>(one.distance);
            if (self.next_[run] < self.end_[run])
                self.write(run, one);
        }
        self.n_found = 0;
    }

    void write(std::size_t run, const Neighbour &one) {
        distances_[next_[run]] = one.distance;
        ids_[next_[run]++] = one.id;
    }

    std::int32_t *distances_;
    std::int64_t *ids_;
    std::vector<std::uint64_t> next_, end_;
    Neighbour buffer_[kBuffer];
};

template <typename Sinks>
std::vector<Sink *> pointers(const Sinks &sinks) {
    std::vector<Sink *> all;
    for (const auto &sink : sinks)
        all.push_back(sink.get());
    return all;
}

using Counters = std::vector<std::unique_ptr<Counter>>;

// Results of the first scan for some queries: the kept results one after the other, and counts by
// distance for queries whose results were not kept.
struct Counted {
    std::size_t first = 0;
    std::vector<Neighbour> kept;
    std::vector<std::vector<std::uint64_t>> counts; // by query; empty if its results were kept
};

std::uint64_t sum(const std::vector<std::uint64_t> &counts) {
    std::uint64_t total = 0;
    for (const std::uint64_t count : counts)
        total += count;
    return total;
}

class RadiusSearch {
  public:
    RadiusSearch(const Database &database, const Codes &queries, const std::int64_t *radii,
                 const Schedule &schedule)
        : database_(database), queries_(queries), radii_(radii), schedule_(schedule),
          n_found_(queries.n) {}

    // Scans once. Results are kept as long as there are at most n_kept of them.
    void count(std::size_t n_kept) {
        if (queries_.n == 0)
            return;
        Allowance allowance(n_kept);
        const auto scan = [&](const ScanTask &task, std::size_t first) {
            Counters counters(task.queries.n);
            for (std::size_t q = 0; q < counters.size(); ++q)
                counters[q] = std::make_unique<Counter>(limit(first + q), allowance);
            for (const auto &one : counters)
                one->by_id = !task.database.balls();
            scan_within(task, pointers(counters));
            return counters;
        };
        const auto done = [&](std::size_t first, std::vector<Counters> slices, const Check &check) {
            merge(first, slices, check);
        };
        scan_all<Counters>(database_, queries_, kBuffer * sizeof(Neighbour), schedule_, scan, done);
    }

    const std::vector<std::int64_t> &n_found() const { return n_found_; }

    // Writes the results of query i from lims[i] on.
    void write(const std::vector<std::int64_t> &lims, std::int32_t *distances, std::int64_t *ids) {
        const auto write_part = [&](std::size_t i, const Check &check) {
            write_counted(counted_[i], lims, distances, ids, check);
            counted_[i] = {};
        };
        parallel_for(counted_.size(), schedule_.n_threads, write_part, schedule_.poll);
    }

  private:
    std::int32_t limit(std::size_t query) const {
        return limit_of(radii_[query], queries_.n_bytes);
    }

    void merge(std::size_t first, std::vector<Counters> &slices, const Check &check) {
        Counted counted;
        counted.first = first;
        counted.counts.resize(slices[0].size());
        for (std::size_t q = 0; q < slices[0].size(); ++q) {
            const bool is_whole = std::all_of(slices.begin(), slices.end(), [&](const auto &slice) {
                return slice[q]->is_whole();
            });
            if (is_whole) {
                std::vector<Neighbour> all;
                for (const Counters &slice : slices) {
                    const std::vector<Neighbour> some = slice[q]->take();
                    all.insert(all.end(), some.begin(), some.end());
                }
                if (slices[0][q]->by_id)
                    sort_by_distance(all, 8 * queries_.n_bytes);
                else
                    sort_by_distance_id(all);
                counted.kept.insert(counted.kept.end(), all.begin(), all.end());
                n_found_[first + q] = static_cast<std::int64_t>(all.size());
            } else {
                std::vector<std::uint64_t> &total = counted.counts[q];
                total.resize(static_cast<std::size_t>(limit(first + q)));
                for (const Counters &slice : slices) {
                    const std::vector<std::uint64_t> some = slice[q]->take_counts();
                    for (std::size_t d = 0; d < total.size(); ++d)
                        total[d] += some[d];
                }
                n_found_[first + q] = static_cast<std::int64_t>(sum(total));
            }
            for (Counters &slice : slices)
                slice[q].reset();
            if (q % 16 == 0)
                check();
        }
        counted.kept.shrink_to_fit();
        const std::lock_guard lock(mutex_);
        counted_.push_back(std::move(counted));
    }

    // Copies kept results; scans once more for all others.
    void write_counted(Counted &counted, const std::vector<std::int64_t> &lims,
                       std::int32_t *distances, std::int64_t *ids, const Check &check) {
        std::vector<std::unique_ptr<Placer>> placers;
        Scratch rows;
        const Neighbour *kept = counted.kept.data();
        for (std::size_t i = 0; i < counted.counts.size(); ++i) {
            const std::size_t q = counted.first + i;
            const auto begin = static_cast<std::size_t>(lims[q]);
            if (!counted.counts[i].empty()) {
                placers.push_back(
                    std::make_unique<Placer>(limit(q), distances + begin, ids + begin));
                placers.back()->set_runs(counted.counts[i]);
                rows.insert(rows.end(), queries_.row(q), queries_.row(q) + queries_.n_bytes);
                continue;
            }
            for (std::size_t at = begin; at < static_cast<std::size_t>(lims[q + 1]); ++at, ++kept) {
                distances[at] = kept->distance;
                ids[at] = kept->id;
            }
            check();
        }
        if (placers.empty())
            return;
        const Database rows_in_order = in_order_of_id(database_);
        const ScanTask task{rows_in_order,
                            {rows.data(), placers.size(), queries_.n_bytes},
                            0,
                            rows_in_order.n(),
                            kernels_for(rows_in_order),
                            check};
        scan_within(task, pointers(placers));
        for (const auto &placer : placers)
            placer->finish();
    }

    const Database &database_;
    const Codes &queries_;
    const std::int64_t *radii_;
    const Schedule &schedule_;
    std::vector<std::int64_t> n_found_;
    std::mutex mutex_; // guards counted_
    std::vector<Counted> counted_;
};

std::vector<std::int64_t> cumulated(const std::vector<std::int64_t> &counts,
                                    std::uint64_t max_results) {
    std::vector<std::int64_t> lims{0};
    lims.reserve(counts.size() + 1);
    for (const std::int64_t count : counts)
        lims.push_back(lims.back() + count);
    if (static_cast<std::uint64_t>(lims.back()) > max_results)
        throw TooManyResults(static_cast<std::uint64_t>(lims.back()));
    return lims;
}

} // namespace

Range within(const Database &database, const Codes &queries, const std::int64_t *radii,
             std::uint64_t max_results, const Schedule &schedule) {
    RadiusSearch search(database, queries, radii, schedule);
    search.count(kKept);
    Range range;
    range.lims = cumulated(search.n_found(), max_results);
    range.distances.resize(static_cast<std::size_t>(range.lims.back()));
    range.ids.resize(static_cast<std::size_t>(range.lims.back()));
    search.write(range.lims, range.distances.data(), range.ids.data());
    return range;
}

std::vector<std::int64_t> count_within(const Database &database, const Codes &queries,
                                       const std::int64_t *radii, const Schedule &schedule) {
    RadiusSearch search(database, queries, radii, schedule);
    search.count(0);
    return search.n_found();
}

namespace {

// Scans the pairs of a tile of rows with all later rows.
template <typename Sinks>
void scan_tile(const Database &database, std::size_t begin, std::size_t n, const Check &check,
               const Sinks &sinks) {
    const Codes &codes = database.codes;
    scan_pairs({database,
                {codes.row(begin), n, codes.n_bytes},
                begin,
                codes.n,
                kernels_for(database),
                check},
               pointers(sinks));
}

} // namespace

Pairs pairs_within(const Database &given, std::size_t radius, std::uint64_t max_results,
                   const Schedule &schedule) {
    const Database database = in_order_of_id(given);
    const std::size_t n_rows = database.codes.n;
    const std::int32_t limit =
        limit_of(static_cast<std::int64_t>(std::min(radius, 8 * database.codes.n_bytes)),
                 database.codes.n_bytes);
    const std::size_t tile = std::max(kTileRows, kernels_for(database).block_codes);
    const std::size_t n_tiles = (n_rows + tile - 1) / tile;
    const auto size_of = [&](std::size_t t) { return std::min(tile, n_rows - t * tile); };

    Allowance allowance(kKept);
    std::vector<std::int64_t> n_found(n_rows);
    std::vector<std::vector<Neighbour>> kept(n_tiles);
    std::vector<char> is_kept(n_tiles, 1);
    const auto count = [&](std::size_t t, const Check &check) {
        Counters counters(size_of(t));
        for (auto &one : counters)
            one = std::make_unique<Counter>(limit, allowance);
        scan_tile(database, t * tile, counters.size(), check, counters);
        for (const auto &one : counters)
            is_kept[t] &= one->is_whole();
        for (std::size_t i = 0; i < counters.size(); ++i) {
            if (!is_kept[t]) {
                n_found[t * tile + i] = static_cast<std::int64_t>(sum(counters[i]->take_counts()));
                continue;
            }
            const std::vector<Neighbour> some = counters[i]->take();
            n_found[t * tile + i] = static_cast<std::int64_t>(some.size());
            kept[t].insert(kept[t].end(), some.begin(), some.end());
        }
        kept[t].shrink_to_fit();
        schedule.advance(share_of_pairs(t * tile, counters.size(), n_rows));
    };
    parallel_for(n_tiles, schedule.n_threads, count, schedule.poll);

    const std::vector<std::int64_t> lims = cumulated(n_found, max_results);
    Pairs pairs;
    for (auto *ids : {&pairs.first, &pairs.second})
        ids->resize(static_cast<std::size_t>(lims.back()));
    pairs.distances.resize(static_cast<std::size_t>(lims.back()));
    const auto write = [&](std::size_t t, const Check &check) {
        const std::size_t n = size_of(t);
        std::vector<std::unique_ptr<Placer>> placers;
        for (std::size_t row = t * tile; row < t * tile + n; ++row) {
            const auto begin = static_cast<std::size_t>(lims[row]);
            std::fill_n(pairs.first.data() + begin, n_found[row], static_cast<std::int64_t>(row));
            if (is_kept[t])
                continue;
            placers.push_back(std::make_unique<Placer>(limit, pairs.distances.data() + begin,
                                                       pairs.second.data() + begin));
            placers.back()->set_run(static_cast<std::uint64_t>(n_found[row]));
        }
        auto at = static_cast<std::size_t>(lims[t * tile]);
        for (const Neighbour &one : kept[t]) {
            pairs.second[at] = one.id;
            pairs.distances[at++] = one.distance;
        }
        kept[t] = {};
        if (is_kept[t])
            return;
        scan_tile(database, t * tile, n, check, placers);
        for (const auto &placer : placers)
            placer->finish();
    };
    parallel_for(n_tiles, schedule.n_threads, write, schedule.poll);
    return pairs;
}

} // namespace ssbhash
