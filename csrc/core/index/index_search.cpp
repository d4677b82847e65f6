#include "core/index/index_search.hpp"

#include "core/base/bits.hpp"
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
// So many queries under one mask pay for packing it into bits.
constexpr std::size_t kPackQueries = 256;
// Finding the live rows pays for more queries than this many times the share of wanted items; not
// if they are more than the second share.
constexpr double kLiveQueries = 5000, kMostLive = 0.2;

// A bit for each item of a segment that is wanted.
std::vector<std::uint8_t> wanted_plane(const Segment &segment, const IdMask &mask) {
    const std::size_t n = segment.n_items;
    std::vector<std::uint8_t> plane((n + 7) / 8);
    std::size_t i = 0;
    if (!segment.ids) { // eight bytes of 0 or 1 become eight bits by one product
        const auto first = static_cast<std::size_t>(segment.first_id);
        const std::uint8_t *from = mask.mask + first;
        std::uint8_t *to = plane.data();
        for (const std::size_t end = first < mask.n ? std::min(n, mask.n - first) : 0; i + 8 <= end;
             i += 8) {
            std::uint64_t bytes = 0;
            std::memcpy(&bytes, from + i, 8);
            to[i / 8] = static_cast<std::uint8_t>(bytes * 0x0102040810204080u >> 56);
        }
    }
    for (; i < n; ++i)
        plane[i / 8] |= static_cast<std::uint8_t>(mask.has(segment.id(i)) << i % 8);
    for (std::size_t byte = 0; segment.allowed && byte < plane.size(); ++byte)
        plane[byte] &= segment.allowed[byte];
    return plane;
}

// The rows of a segment with `members` that have a wanted item, in the order of the first such
// items. So the k nearest of them hold the k nearest wanted items.
struct LiveRows {
    std::vector<std::size_t> rows;
    std::vector<std::uint8_t> codes;

    LiveRows(const Segment &segment, const std::uint8_t *wanted) {
        const std::size_t n_bytes = segment.codes.n_bytes;
        std::vector<std::pair<std::uint32_t, std::uint32_t>> firsts; // first wanted item, row
        std::vector<std::uint64_t> is_first(segment.n_items / 64 + 1);
        for (std::size_t row = 0; row < segment.codes.n; ++row) {
            const std::size_t end = segment.first_member[row + 1];
            if (end > segment.n_items)
                throw Damaged();
            for (std::size_t i = segment.first_member[row]; i < end; ++i) {
                const std::uint32_t item = segment.members[i];
                if (item >= segment.n_items)
                    throw Damaged();
                if (wanted[item / 8] >> item % 8 & 1) {
                    firsts.emplace_back(item, row);
                    is_first[item / 64] |= std::uint64_t{1} << item % 64;
                    break;
                }
            }
        }
        std::vector<std::size_t> before(is_first.size()); // first items in the words before
        for (std::size_t word = 1; word < before.size(); ++word)
            before[word] = before[word - 1] + count_ones(is_first[word - 1]);
        rows.resize(firsts.size());
        codes.resize(firsts.size() * n_bytes);
        for (const auto &[item, row] : firsts) {
            const std::uint64_t lower = is_first[item / 64] & ((std::uint64_t{1} << item % 64) - 1);
            const std::size_t place = before[item / 64] + count_ones(lower);
            rows[place] = row;
            std::memcpy(codes.data() + place * n_bytes, segment.codes.row(row), n_bytes);
        }
    }
};

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
        const bool is_grouped = segment_.members && !in_order();
        if (segment_.parts && !(is_grouped && live_pays()))
            unproved = probe_tables();
        if (unproved.empty())
            return;
        if (in_order())
            scan_flat(unproved, nullptr);
        else if (is_grouped && unproved.size() >= kBatch)
            scan_live(unproved);
        else
            scan_rows(unproved);
    }

  private:
    // Rows are in the order of their first items, so the k nearest rows hold the k nearest items.
    // This fails if first items are left out, more than the one that a query excludes.
    bool in_order() const { return segment_.members ? !is_filtered() : segment_.ascending; }
    bool is_filtered() const { return segment_.allowed || queries_.mask.mask; }

    bool is_wanted(std::size_t item) const {
        return segment_.is_allowed(item) && queries_.mask.has(segment_.id(item));
    }

    // About which share of the items is wanted; a sample tells.
    double share_wanted() const {
        const std::size_t n = segment_.n_items;
        if (!is_filtered() || n < kSample)
            return 1;
        std::size_t n_wanted = 1;
        for (std::size_t i = 0; i < kSample; ++i)
            n_wanted += is_wanted(i * (n / kSample));
        return static_cast<double>(n_wanted) / kSample;
    }

    bool live_pays() const {
        const double share = share_wanted();
        return queries_.codes.n >= kBatch && share <= kMostLive &&
               static_cast<double>(queries_.codes.n) > kLiveQueries * share;
    }

    // About how many rows a scan reads: it gathers those that are wanted, if they are few.
    double n_scanned() const {
        const auto n = static_cast<double>(segment_.codes.n);
        return in_order() ? n * std::min(1.0, share_wanted() * kGatherCost) : n;
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
        const double scan_cost = n_scanned() / (is_batch ? kBatchGain : 1);
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

    void scan_live(const std::vector<std::size_t> &which) {
        std::vector<std::uint8_t> plane;
        if (queries_.mask.mask)
            plane = wanted_plane(segment_, queries_.mask);
        const LiveRows live(segment_, queries_.mask.mask ? plane.data() : segment_.allowed);
        if (!live.rows.empty())
            scan_flat(which, &live);
    }

    // Scans all rows, or the live ones, for all queries at once, as `search` does.
    void scan_flat(const std::vector<std::size_t> &which, const LiveRows *live) {
        const std::size_t n_bytes = queries_.codes.n_bytes;
        std::vector<std::uint8_t> some(which.size() * n_bytes);
        for (std::size_t i = 0; i < which.size(); ++i)
            std::copy_n(queries_.codes.row(which[i]), n_bytes, some.data() + i * n_bytes);
        const Codes codes{some.data(), which.size(), n_bytes};
        Database database{segment_.codes};
        std::vector<std::uint8_t> plane;
        FilterMemory memory;
        if (live) {
            database.codes = {live->codes.data(), live->rows.size(), n_bytes};
        } else {
            if (queries_.mask.mask)
                plane = wanted_plane(segment_, queries_.mask);
            database.allowed = queries_.mask.mask ? plane.data() : segment_.allowed;
            choose_filter(database, codes.n, memory);
        }
        if (queries_.k == 0) {
            const std::vector<std::int64_t> radii(which.size(),
                                                  static_cast<std::int64_t>(queries_.max_distance));
            const Range range = within(database, codes, radii.data(), ~std::uint64_t{0}, schedule_);
            for (std::size_t i = 0; i < which.size(); ++i)
                collect(which[i], range.distances.data(), range.ids.data(),
                        static_cast<std::size_t>(range.lims[i]),
                        static_cast<std::size_t>(range.lims[i + 1]), live);
            return;
        }
        const std::size_t k =
            std::min(queries_.k + (queries_.excluded != nullptr), database.codes.n);
        std::vector<std::int32_t> distances(which.size() * k);
        std::vector<std::int64_t> ids(which.size() * k);
        std::int32_t limit = 0;
        for (std::size_t i : which)
            limit = std::max(limit, limits_[i]);
        ssbhash::search(database, codes, k, schedule_, distances.data(), ids.data(),
                        static_cast<std::size_t>(limit - 1));
        for (std::size_t i = 0; i < which.size(); ++i)
            collect(which[i], distances.data(), ids.data(), i * k, (i + 1) * k, live);
    }

    // Takes what a scan found, ascending by (distance, row).
    void collect(std::size_t i, const std::int32_t *distances, const std::int64_t *rows,
                 std::size_t begin, std::size_t end, const LiveRows *live) {
        const Query query = this->query(i);
        if (segment_.members) {
            Collector collector(segment_, query, active_isa().search);
            for (std::size_t j = begin; j < end && rows[j] != kMissing.id; ++j) {
                const auto row = static_cast<std::size_t>(rows[j]);
                collector.add_row(live ? live->rows[row] : row, distances[j]);
            }
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
    for (const Segment &segment : segments) {
        if (segment.codes.n == 0)
            continue;
        if (!queries.mask.mask || queries.codes.n < kPackQueries) {
            SegmentSearch(segment, queries, schedule, found).run();
            continue;
        }
        const std::vector<std::uint8_t> plane = wanted_plane(segment, queries.mask);
        Segment masked = segment;
        masked.allowed = plane.data();
        IndexQueries rest = queries;
        rest.mask = {};
        SegmentSearch(masked, rest, schedule, found).run();
    }
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
