#include "core/index/collector.hpp"

#include "core/base/bits.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace ssbhash {
namespace {

// Costs in codes that a scan reads in order, measured at 64 and 128 bits: of a list, of a code in
// it, and of a code that is gathered. Tables far larger than a cache cost twice as much.
constexpr double kListCost = 100, kCodeCost = 2, kGatheredCost = 8, kFarCost = 2;
constexpr std::size_t kNearBytes = std::size_t{64} << 20;
// For each wanted neighbour a scan keeps one, and lists offer several rows, which are followed.
constexpr double kKeptCost = 550, kFollowedCost = 1750;
// After this share of a scan's cost the limit is known roughly.
constexpr double kSettled = 0.005;
constexpr double kUnlimited = std::numeric_limits<double>::infinity();
constexpr std::size_t kRunBytes = 1 << 16;              // between two checks whether to stop
constexpr std::size_t kListsAhead = 8, kRowsAhead = 64; // fetched from memory
constexpr std::size_t kMembersAhead = 8;
constexpr std::size_t kOffered = 64;    // small, so that the limit falls soon
constexpr std::size_t kRowsAtOnce = 16; // whose items are prefetched

struct List {
    std::uint32_t begin, end;
};

} // namespace

// Knows which lists a query has read, and what the next ones would cost. The radius grows in one
// table at a time, the one where it costs least, as in Qin et al., "GPH", ICDE 2018.
class Collector::Probes {
  public:
    Probes(const Segment &segment, const std::uint8_t *query)
        : segment_(segment), parts_(*segment.parts) {
        code_cost_ = segment.tables[0].codes ? kCodeCost : kGatheredCost;
        if (segment.codes.n * segment.codes.n_bytes * parts_.n_tables() > kNearBytes)
            far_cost_ = kFarCost;
        for (std::size_t t = 0; t < parts_.n_tables(); ++t) {
            keys_[t] = parts_.key(t, query);
            plan(t);
        }
    }

    // All rows closer than this were offered.
    std::int32_t n_proved() const { return n_proved_; }

    // Returns the table whose next lists cost least.
    std::size_t cheapest() const { return cheapest(cost_); }
    double cost(std::size_t t) const { return cost_[t]; }

    // Estimates what it costs to prove all rows closer than `limit`; stops counting above `most`.
    // At the next radius of a table there are more lists. They are taken to cost what those at this
    // radius do.
    double cost_to(std::int32_t limit, double most) const {
        double cost[kMaxTables], sum = 0;
        std::size_t radius[kMaxTables];
        std::copy_n(cost_, parts_.n_tables(), cost);
        std::copy_n(radius_, parts_.n_tables(), radius);
        for (std::int32_t step = n_proved_; step < limit && sum < most; ++step) {
            const std::size_t t = cheapest(cost);
            sum += cost[t];
            const std::size_t more = parts_.width(t) - radius[t]++;
            cost[t] = more == 0
                          ? kUnlimited
                          : cost[t] * static_cast<double>(more) / static_cast<double>(radius[t]);
        }
        return sum;
    }

    // Starts to read the next lists of a table.
    const std::vector<List> &begin(std::size_t t) {
        table_ = t;
        return lists_[t];
    }
    const Table &table() const { return segment_.tables[table_]; }

    // Ends a step of a table, and finds its next lists.
    void advance() {
        ++n_proved_;
        ++radius_[table_];
        plan(table_);
    }

    // Returns the row at a place in the table that is being read.
    std::size_t row(std::size_t place) const {
        const std::size_t row = segment_.row(table_, place);
        if (row >= segment_.codes.n)
            throw Damaged();
        return row;
    }

    // Whether no earlier list had the row at a place.
    bool is_new(std::size_t place, std::size_t row) const {
        const std::size_t n_bytes = segment_.codes.n_bytes;
        const std::uint8_t *code =
            table().codes ? table().codes + place * n_bytes : segment_.codes.row(row);
        for (std::size_t t = 0; t < parts_.n_tables(); ++t)
            if (radius_[t] > 0 && count_ones(parts_.key(t, code) ^ keys_[t]) < radius_[t])
                return false;
        return true;
    }

  private:
    std::size_t cheapest(const double *cost) const {
        return static_cast<std::size_t>(std::min_element(cost, cost + parts_.n_tables()) - cost);
    }

    // Finds the lists at the next radius of a table.
    void plan(std::size_t t) {
        lists_[t].clear();
        cost_[t] = kUnlimited;
        if (radius_[t] > parts_.width(t))
            return;
        const Masks &masks = masks_of(parts_.width(t));
        const std::uint32_t *starts = segment_.tables[t].starts;
        std::size_t n_codes = 0;
        for (std::size_t i = masks.first[radius_[t]]; i < masks.first[radius_[t] + 1]; ++i) {
            const std::uint32_t key = keys_[t] ^ masks.masks[i];
            const List list{starts[key], starts[key + 1]};
            if (list.begin > list.end || list.end > segment_.codes.n)
                throw Damaged();
            if (list.begin == list.end)
                continue;
            lists_[t].push_back(list);
            n_codes += list.end - list.begin;
        }
        cost_[t] = far_cost_ * (kListCost * static_cast<double>(lists_[t].size()) +
                                code_cost_ * static_cast<double>(n_codes));
    }

    const Segment &segment_;
    const Parts &parts_;
    double code_cost_, far_cost_ = 1;
    std::int32_t n_proved_ = 0;
    std::size_t table_ = 0;
    std::uint32_t keys_[kMaxTables];
    std::size_t radius_[kMaxTables] = {}; // all lists of a table closer than this were read
    double cost_[kMaxTables];
    std::vector<List> lists_[kMaxTables];
};

Collector::Collector(const Segment &segment, const Query &query, const SearchKernels &kernels)
    : Sink{query.limit, &make_room}, segment_(segment), query_(query), kernels_(kernels),
      counts_(query.k ? 8 * segment.codes.n_bytes + 1 : 0), offered_(kOffered), last_kept_(kNoId) {
    found = offered_.data();
    capacity = offered_.size();
}

bool Collector::probe(double scan_cost, const Check &check) {
    Probes probes(segment_, query_.code);
    probes_ = &probes;
    const double k = static_cast<double>(query_.k);
    const double share_distinct =
        static_cast<double>(segment_.codes.n) / static_cast<double>(segment_.n_items);
    const double most = scan_cost + kKeptCost * k - kFollowedCost * k * share_distinct;
    double spent = 0;
    while (probes.n_proved() < limit) {
        const std::size_t t = probes.cheapest();
        // With k the limit is known only roughly until some lists were read.
        const bool is_limit_known = query_.k == 0 || spent > kSettled * scan_cost;
        if (spent + probes.cost(t) > most ||
            (is_limit_known && probes.cost_to(limit, most) > most)) {
            probes_ = nullptr;
            return false;
        }
        spent += probes.cost(t);
        const std::vector<List> &lists = probes.begin(t);
        for (std::size_t i = 0; i < lists.size(); ++i) {
            if (i + kListsAhead < lists.size())
                prefetch_list(probes.table(), lists[i + kListsAhead].begin);
            scan_list(lists[i].begin, lists[i].end);
        }
        consume(); // must come before the end of the step
        probes.advance();
        check();
    }
    probes_ = nullptr;
    return true;
}

void Collector::prefetch_list(const Table &table, std::size_t place) const {
    const std::uint8_t *soon = table.codes ? table.codes + place * segment_.codes.n_bytes
                                           : table.rows + place * row_bytes(segment_.codes.n);
    __builtin_prefetch(soon);
    __builtin_prefetch(soon + 64);
}

void Collector::scan_list(std::size_t begin, std::size_t end) {
    const std::size_t n_bytes = segment_.codes.n_bytes;
    const std::uint8_t *codes = probes_->table().codes;
    if (codes)
        codes += begin * n_bytes;
    else
        codes = gather(begin, end);
    kernels_.scan_rows({codes, end - begin, nullptr, static_cast<std::int64_t>(begin), nullptr},
                       n_bytes, query_.code, *this);
}

// Copies the codes of a list together. They are scattered, so many are fetched at a time.
const std::uint8_t *Collector::gather(std::size_t begin, std::size_t end) {
    const Codes &codes = segment_.codes;
    const std::uint8_t *rows = probes_->table().rows;
    const std::size_t n_row_bytes = row_bytes(codes.n), n = end - begin;
    if (gathered_.size() < n * codes.n_bytes)
        gathered_.resize(2 * n * codes.n_bytes);
    const auto row = [&](std::size_t i) {
        const std::size_t found = row_at(rows, begin + i, n_row_bytes);
        if (found >= codes.n)
            throw Damaged();
        return codes.row(found);
    };
    for (std::size_t i = 0; i < std::min(n, kRowsAhead); ++i)
        __builtin_prefetch(row(i), 0, 2); // to the second level, which takes more at a time
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kRowsAhead < n)
            __builtin_prefetch(row(i + kRowsAhead), 0, 2);
        if (codes.n_bytes == 8) // a constant size, so that the copy is one move
            std::memcpy(gathered_.data() + 8 * i, row(i), 8);
        else
            std::memcpy(gathered_.data() + codes.n_bytes * i, row(i), codes.n_bytes);
    }
    return gathered_.data();
}

void Collector::scan_all_rows(const Check &check) {
    const Codes &codes = segment_.codes;
    const std::size_t run = std::max<std::size_t>(256, kRunBytes / codes.n_bytes);
    for (std::size_t first = 0; first < codes.n; first += run) {
        kernels_.scan_rows({codes.row(first), std::min(run, codes.n - first), nullptr,
                            static_cast<std::int64_t>(first), nullptr},
                           codes.n_bytes, query_.code, *this);
        check();
    }
    consume();
}

void Collector::make_room(Sink &sink) { static_cast<Collector &>(sink).consume(); }

void Collector::consume() {
    const std::size_t n = n_found;
    n_found = 0;
    // The nearest lower the limit, so that the items of the others are not looked up.
    if (query_.k > 0 && n > 1)
        std::sort(offered_.begin(), offered_.begin() + static_cast<std::ptrdiff_t>(n),
                  [](const Neighbour &a, const Neighbour &b) { return a.distance < b.distance; });
    // What a row leads to is scattered over memory, so several rows are followed at a time.
    std::size_t rows[kRowsAtOnce];
    for (std::size_t first = 0; first < n; first += kRowsAtOnce) {
        const Neighbour *some = offered_.data() + first;
        const std::size_t most = std::min(kRowsAtOnce, n - first);
        const auto place = [&](std::size_t i) { return static_cast<std::size_t>(some[i].id); };
        std::size_t m = 0;
        for (; m < most && some[m].distance < limit; ++m)
            if (probes_)
                __builtin_prefetch(probes_->table().rows + place(m) * row_bytes(segment_.codes.n));
        for (std::size_t i = 0; i < m; ++i) {
            rows[i] = probes_ ? probes_->row(place(i)) : place(i);
            if (segment_.members)
                __builtin_prefetch(segment_.first_member + rows[i]);
            else
                prefetch_item(rows[i]);
        }
        for (std::size_t i = 0; segment_.members && i < m; ++i)
            if (segment_.first_member[rows[i]] < segment_.n_items)
                __builtin_prefetch(segment_.members + segment_.first_member[rows[i]]);
        for (std::size_t i = 0; i < m; ++i)
            if (some[i].distance < limit && (segment_.members || is_wanted(rows[i])) &&
                (!probes_ || probes_->is_new(place(i), rows[i])))
                add_row(rows[i], some[i].distance);
        if (m < most) // the others are too far; without k the limit is fixed, and all were added
            return;
    }
}

bool Collector::is_wanted(std::size_t item) const {
    return segment_.is_allowed(item) && query_.mask.has(segment_.id(item));
}

// Fetches what is_wanted reads.
void Collector::prefetch_item(std::size_t item) const {
    if (segment_.allowed)
        __builtin_prefetch(segment_.allowed + item / 8);
    if (segment_.ids)
        __builtin_prefetch(segment_.ids + item);
    else if (query_.mask.mask)
        __builtin_prefetch(query_.mask.mask + segment_.id(item));
}

void Collector::add_row(std::size_t row, std::int32_t distance) {
    if (row >= segment_.codes.n)
        throw Damaged();
    if (!segment_.members) {
        add_item(row, distance);
        return;
    }
    const std::size_t begin = segment_.first_member[row], end = segment_.first_member[row + 1];
    if (begin > end || end > segment_.n_items)
        throw Damaged();
    // Members ascend, so once one is refused all later ones are; and k of a row are enough.
    n_added_ = 0;
    for (std::size_t i = begin; i < end; ++i) {
        if (segment_.members[i] >= segment_.n_items)
            throw Damaged();
        if (i + kMembersAhead < end)
            prefetch_item(segment_.members[i + kMembersAhead]);
        if (!add_item(segment_.members[i], distance) || (query_.k > 0 && n_added_ == query_.k))
            return;
    }
}

// Returns false if neither this item nor any with a larger id qualifies at this distance.
bool Collector::add_item(std::size_t item, std::int32_t distance) {
    const std::int64_t id = segment_.id(item);
    if (distance >= limit || (distance + 1 == limit && id >= last_kept_))
        return false;
    if (id == query_.excluded || !is_wanted(item))
        return true;
    kept_.push_back({distance, id});
    if (query_.k == 0)
        return true;
    ++n_added_;
    ++counts_[static_cast<std::size_t>(distance)];
    ++below;
    while (below - counts_[static_cast<std::size_t>(limit) - 1] >= query_.k) {
        below -= counts_[static_cast<std::size_t>(--limit)];
        last_kept_ = kNoId;
    }
    if (kept_.size() >= 4 * query_.k + 64)
        keep_smallest();
    return true;
}

// `below` of those kept have a distance below the limit, and the k-th of them is at limit - 1.
void Collector::keep_smallest() {
    if (below < query_.k) // the limit is still the caller's
        return;
    const auto kth = kept_.begin() + static_cast<std::ptrdiff_t>(query_.k - 1);
    std::nth_element(kept_.begin(), kth, kept_.end(), is_before);
    last_kept_ = kth->id;
    kept_.resize(query_.k);
    counts_[static_cast<std::size_t>(limit) - 1] -= static_cast<std::uint32_t>(below - query_.k);
    below = query_.k;
}

std::vector<Neighbour> Collector::take() {
    if (query_.k > 0 && kept_.size() > query_.k) {
        std::nth_element(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(query_.k),
                         kept_.end(), is_before);
        kept_.resize(query_.k);
    }
    std::sort(kept_.begin(), kept_.end(), is_before);
    return std::move(kept_);
}

} // namespace ssbhash
