#include "core/index/index_search.hpp"

#include "core/base/dispatch.hpp"
#include "core/search/radius.hpp"
#include "core/search/search.hpp"
#include "core/search/top_k.hpp"

#include <algorithm>
#include <cstring>

namespace ssbhash {
namespace {

using Found = std::vector<std::vector<Neighbour>>;

constexpr std::size_t kQueriesATask = 8;
// Many queries share a scan, which is this many times as fast for each. A few of them are tried
// first, to see whether lists serve the others.
constexpr double kBatchGain = 8;
constexpr std::size_t kBatch = 64, kTrials = 2;
constexpr std::size_t kSample = 256, kGatherCost = 8; // of a row, in rows scanned in order

// Searches one segment for all queries; merges what it finds into `found`.
class SegmentSearch {
  public:
    SegmentSearch(const Segment &segment, const IndexQueries &queries, const Schedule &schedule,
                  Found &found)
        : segment_(segment), queries_(queries), schedule_(schedule), found_(found) {
        const std::size_t n_bits = 8 * queries.codes.n_bytes;
        const auto limit = static_cast<std::int32_t>(std::min(queries.max_distance, n_bits) + 1);
        for (const std::vector<Neighbour> &own : found) // a tie may win by its id
            limits_.push_back(queries.k > 0 && own.size() == queries.k
                                  ? std::min(limit, own.back().distance + 1)
                                  : limit);
    }

    void run() {
        std::vector<std::size_t> unproved(queries_.codes.n);
        for (std::size_t i = 0; i < unproved.size(); ++i)
            unproved[i] = i;
        if (segment_.parts)
            unproved = probe_tables();
        if (unproved.empty())
            return;
        if (in_order())
            scan_flat(unproved);
        else
            scan_rows(unproved);
    }

  private:
    // Rows are in the order of their first items, so the k nearest rows hold the k nearest items.
    // This fails if first items are left out.
    bool in_order() const {
        return segment_.members ? !is_filtered() && !queries_.excluded : segment_.ascending;
    }
    bool is_filtered() const { return segment_.allowed || queries_.mask.mask; }

    bool is_wanted(std::size_t item) const {
        return segment_.is_allowed(item) && queries_.mask.has(segment_.id(item));
    }

    // About how many rows a scan reads: it gathers those that are wanted, if they are few.
    std::size_t n_scanned() const {
        const std::size_t n = segment_.n_items;
        if (!is_filtered() || !in_order() || n < kSample)
            return segment_.codes.n;
        std::size_t n_wanted = 0;
        for (std::size_t i = 0; i < kSample; ++i)
            n_wanted += is_wanted(i * (n / kSample));
        return std::min(n, (n_wanted + 1) * (n / kSample) * kGatherCost);
    }

    Query query(std::size_t i) const {
        return {queries_.codes.row(i), queries_.k, limits_[i],
                queries_.excluded ? queries_.excluded[i] : kNoId, queries_.mask};
    }

    void add(std::size_t i, std::vector<Neighbour> more) {
        std::vector<Neighbour> &own = found_[i];
        if (own.empty()) {
            own = std::move(more);
        } else {
            const auto middle = static_cast<std::ptrdiff_t>(own.size());
            own.insert(own.end(), more.begin(), more.end());
            std::inplace_merge(own.begin(), own.begin() + middle, own.end(), is_before);
        }
        if (queries_.k > 0 && own.size() > queries_.k)
            own.resize(queries_.k);
    }

    template <typename Do>
    void for_queries(std::size_t n, Do &&run_it) {
        const std::size_t n_tasks = (n + kQueriesATask - 1) / kQueriesATask;
        parallel_for(
            n_tasks, schedule_.n_threads,
            [&](std::size_t task, const Check &check) {
                const std::size_t end = std::min((task + 1) * kQueriesATask, n);
                for (std::size_t i = task * kQueriesATask; i < end; ++i)
                    run_it(i, check);
            },
            schedule_.poll);
    }

    // Queries that the tables did not serve.
    std::vector<std::size_t> probe_tables() {
        const std::size_t n = queries_.codes.n;
        const bool is_batch = n >= kBatch && in_order();
        const double scan_cost = static_cast<double>(n_scanned()) / (is_batch ? kBatchGain : 1);
        std::vector<std::uint8_t> is_proved(n);
        const auto probe = [&](std::size_t begin, std::size_t end) {
            for_queries(end - begin, [&](std::size_t i, const Check &check) {
                Collector collector(segment_, query(begin + i), active_isa().search);
                is_proved[begin + i] = collector.probe(scan_cost, check);
                if (is_proved[begin + i])
                    add(begin + i, collector.take());
                else
                    limits_[begin + i] = collector.limit;
            });
        };
        const std::size_t n_trials = is_batch ? kTrials : n;
        probe(0, n_trials);
        const auto n_proved = static_cast<std::size_t>(std::count(
            is_proved.begin(), is_proved.begin() + static_cast<std::ptrdiff_t>(n_trials), 1));
        if (n_trials < n && 2 * n_proved >= n_trials)
            probe(n_trials, n);
        std::vector<std::size_t> unproved;
        for (std::size_t i = 0; i < n; ++i)
            if (!is_proved[i])
                unproved.push_back(i);
        return unproved;
    }

    void scan_rows(const std::vector<std::size_t> &which) {
        for_queries(which.size(), [&](std::size_t i, const Check &check) {
            Collector collector(segment_, query(which[i]), active_isa().search);
            collector.scan_all_rows(check);
            add(which[i], collector.take());
        });
    }

    // Scans for all queries at once, as `search` does.
    void scan_flat(const std::vector<std::size_t> &which) {
        const std::size_t n_bytes = queries_.codes.n_bytes;
        std::vector<std::uint8_t> some(which.size() * n_bytes);
        for (std::size_t i = 0; i < which.size(); ++i)
            std::copy_n(queries_.codes.row(which[i]), n_bytes, some.data() + i * n_bytes);
        const Codes codes{some.data(), which.size(), n_bytes};
        Database database{segment_.codes};
        const std::vector<std::uint8_t> plane = wanted_plane();
        database.allowed = queries_.mask.mask ? plane.data() : segment_.allowed;
        FilterMemory memory;
        choose_filter(database, codes.n, memory);
        if (queries_.k == 0) {
            const std::vector<std::int64_t> radii(which.size(),
                                                  static_cast<std::int64_t>(queries_.max_distance));
            const Range range = within(database, codes, radii.data(), ~std::uint64_t{0}, schedule_);
            for (std::size_t i = 0; i < which.size(); ++i)
                collect(which[i], range.distances.data(), range.ids.data(),
                        static_cast<std::size_t>(range.lims[i]),
                        static_cast<std::size_t>(range.lims[i + 1]));
            return;
        }
        const std::size_t k =
            std::min(queries_.k + (queries_.excluded != nullptr), segment_.codes.n);
        std::vector<std::int32_t> distances(which.size() * k);
        std::vector<std::int64_t> ids(which.size() * k);
        std::int32_t limit = 0;
        for (std::size_t i : which)
            limit = std::max(limit, limits_[i]);
        ssbhash::search(database, codes, k, schedule_, distances.data(), ids.data(),
                        static_cast<std::size_t>(limit - 1));
        for (std::size_t i = 0; i < which.size(); ++i)
            collect(which[i], distances.data(), ids.data(), i * k, (i + 1) * k);
    }

    // A bit for each item that is wanted; empty without a mask.
    std::vector<std::uint8_t> wanted_plane() const {
        const std::size_t n = queries_.mask.mask ? segment_.n_items : 0;
        std::vector<std::uint8_t> plane((n + 7) / 8);
        std::size_t i = 0;
        if (!segment_.ids) { // eight bytes of 0 or 1 become eight bits by one product
            const auto first = static_cast<std::size_t>(segment_.first_id);
            for (; i + 8 <= n && first + i + 8 <= queries_.mask.n; i += 8) {
                std::uint64_t bytes = 0;
                std::memcpy(&bytes, queries_.mask.mask + first + i, 8);
                plane[i / 8] = static_cast<std::uint8_t>(bytes * 0x0102040810204080u >> 56);
            }
        }
        for (; i < n; ++i)
            plane[i / 8] |= static_cast<std::uint8_t>(queries_.mask.has(segment_.id(i)) << i % 8);
        for (std::size_t byte = 0; segment_.allowed && byte < plane.size(); ++byte)
            plane[byte] &= segment_.allowed[byte];
        return plane;
    }

    // Takes what a scan found, ascending by (distance, row).
    void collect(std::size_t i, const std::int32_t *distances, const std::int64_t *rows,
                 std::size_t begin, std::size_t end) {
        const Query query = this->query(i);
        if (segment_.members) {
            Collector collector(segment_, query, active_isa().search);
            for (std::size_t j = begin; j < end && rows[j] != kMissing.id; ++j)
                collector.add_row(static_cast<std::size_t>(rows[j]), distances[j]);
            add(i, collector.take());
            return;
        }
        std::vector<Neighbour> more; // rows are items, and their ids ascend
        more.reserve(end - begin);
        for (std::size_t j = begin; j < end && rows[j] != kMissing.id; ++j) {
            const std::int64_t id = segment_.id(static_cast<std::size_t>(rows[j]));
            if (id != query.excluded)
                more.push_back({distances[j], id});
        }
        add(i, std::move(more));
    }

    const Segment &segment_;
    const IndexQueries &queries_;
    const Schedule &schedule_;
    Found &found_;
    std::vector<std::int32_t> limits_; // of each query: distances must be below it
};

} // namespace

std::vector<std::vector<Neighbour>> search_index(const std::vector<Segment> &segments,
                                                 const IndexQueries &queries,
                                                 const Schedule &schedule) {
    Found found(queries.codes.n);
    for (const Segment &segment : segments)
        if (segment.codes.n > 0)
            SegmentSearch(segment, queries, schedule, found).run();
    return found;
}

double share_probed(const Segment &segment, const Codes &queries, std::size_t k) {
    std::size_t n_proved = 0;
    for (std::size_t i = 0; i < queries.n; ++i) {
        const auto limit = static_cast<std::int32_t>(8 * queries.n_bytes + 1);
        Collector collector(segment, {queries.row(i), k, limit, kNoId, {}}, active_isa().search);
        n_proved += collector.probe(static_cast<double>(segment.codes.n), [] {});
    }
    return static_cast<double>(n_proved) / static_cast<double>(queries.n);
}

} // namespace ssbhash
