#include "core/index/near_pairs.hpp"

#include "core/base/aligned.hpp"
#include "core/base/dispatch.hpp"
#include "core/index/segment.hpp"
#include "core/search/scan.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>

namespace ssbhash {
namespace {

// Measured at 64 bits, in units of a pair compared by carry tables: the cost of a pair compared by
// row, and of a row put into a table.
constexpr double kPairCost = 5, kRowCost = 400;
constexpr std::size_t kRowsATask = 1024, kScansACheck = 64;
constexpr std::size_t kOffered = 64;
constexpr std::size_t kTileRows = 1024;

std::size_t ceil_log2(std::size_t n) {
    std::size_t log = 0;
    while (log < 63 && (std::size_t{1} << log) < n)
        ++log;
    return log;
}

// Codes at most `radius` bits apart agree in at least one of radius + 1 parts.
class EqualParts {
  public:
    // Returns nothing if comparing all pairs costs less.
    static std::optional<EqualParts> choose(const Codes &codes, std::size_t radius,
                                            const Check &check) {
        const std::size_t n_bits = 8 * codes.n_bytes;
        if (radius >= kMaxTables || radius >= n_bits || codes.n < 2 ||
            codes.n > std::numeric_limits<std::uint32_t>::max() - 1)
            return std::nullopt;
        EqualParts parts(codes, radius);
        const double n = static_cast<double>(codes.n);
        const double all = n * n / 2;
        double cost = 0;
        for (std::size_t t = 0; t <= radius && cost < all; ++t)
            cost += kRowCost * n + kPairCost * parts.n_pairs(t, check);
        if (cost >= all)
            return std::nullopt;
        return parts;
    }

    // Calls emit(first, second, distance) for each pair once, from several threads.
    template <typename Emit>
    void for_pairs(const Schedule &schedule, Emit &&emit) {
        rows_.resize(codes_.n * row_bytes(codes_.n));
        copies_.resize(codes_.n * codes_.n_bytes);
        for (table_ = 0; table_ <= radius_; ++table_) {
            starts_.resize((std::size_t{1} << parts_.width(table_)) + 1);
            build_table(codes_, parts_, table_, starts_.data(), rows_.data(), copies_.data(),
                        schedule.check());
            const std::size_t n_tasks = (codes_.n + kRowsATask - 1) / kRowsATask;
            const double share = 1.0 / static_cast<double>(n_tasks * (radius_ + 1));
            parallel_for(
                n_tasks, schedule.n_threads,
                [&](std::size_t task, const Check &check) {
                    const std::size_t begin = task * kRowsATask;
                    scan_places(begin, std::min(begin + kRowsATask, codes_.n), check, emit);
                    schedule.advance(share);
                },
                schedule.poll);
        }
    }

  private:
    EqualParts(const Codes &codes, std::size_t radius)
        : codes_(codes), radius_(radius),
          parts_(codes.n_bytes, radius + 1,
                 std::clamp<std::size_t>(ceil_log2(codes.n), 8, kMaxKeyBits)) {}

    double n_pairs(std::size_t table, const Check &check) const {
        std::vector<std::uint32_t> counts(std::size_t{1} << parts_.width(table), 0);
        for (std::size_t i = 0; i < codes_.n; ++i) {
            if (i % kRowsACheck == 0)
                check();
            ++counts[parts_.key(table, codes_.row(i))];
        }
        double pairs = 0;
        for (std::uint32_t count : counts)
            pairs += static_cast<double>(count) * count / 2;
        return pairs;
    }

    template <typename Emit>
    struct PairSink : Sink {
        PairSink(const EqualParts &owner_, Emit &emit_)
            : Sink{static_cast<std::int32_t>(owner_.radius_ + 1),
                   [](Sink &sink) { static_cast<PairSink &>(sink).consume(); }},
              owner(owner_), emit(emit_) {
            found = buffer;
            capacity = kOffered;
        }

        void consume() {
            for (std::size_t i = 0; i < n_found; ++i)
                owner.offer(place, static_cast<std::size_t>(buffer[i].id), buffer[i].distance,
                            emit);
            n_found = 0;
        }

        const EqualParts &owner;
        Emit &emit;
        std::size_t place = 0;
        Neighbour buffer[kOffered];
    };

    template <typename Emit>
    void scan_places(std::size_t begin, std::size_t end, const Check &check, Emit &emit) const {
        const SearchKernels &kernels = active_isa().search;
        const std::size_t n_bytes = codes_.n_bytes;
        PairSink<Emit> sink(*this, emit);
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint8_t *code = copies_.data() + i * n_bytes;
            const std::size_t stop = starts_[parts_.key(table_, code) + 1];
            sink.place = i;
            if (i + 1 < stop)
                kernels.scan_rows({code + n_bytes, stop - i - 1, nullptr,
                                   static_cast<std::int64_t>(i + 1), nullptr},
                                  n_bytes, code, sink);
            sink.consume();
            if (i % kScansACheck == 0)
                check();
        }
    }

    template <typename Emit>
    void offer(std::size_t a, std::size_t b, std::int32_t distance, Emit &emit) const {
        const std::uint8_t *one = copies_.data() + a * codes_.n_bytes;
        const std::uint8_t *two = copies_.data() + b * codes_.n_bytes;
        for (std::size_t t = 0; t < table_; ++t)
            if (parts_.key(t, one) == parts_.key(t, two))
                return; // an earlier table had this pair
        const std::uint32_t first = row(a), second = row(b);
        emit(std::min(first, second), std::max(first, second), distance);
    }

    std::uint32_t row(std::size_t place) const {
        return static_cast<std::uint32_t>(row_at(rows_.data(), place, row_bytes(codes_.n)));
    }

    Codes codes_;
    std::size_t radius_;
    Parts parts_;
    std::size_t table_ = 0;
    std::vector<std::uint32_t> starts_;
    std::vector<std::uint8_t> rows_;
    Scratch copies_;
};

// Disjoint sets of rows; the smallest row of a set is its root. Many threads may use it.
class Sets {
  public:
    explicit Sets(std::size_t n) : parents_(n), n_sets_(n) {
        for (std::size_t i = 0; i < n; ++i)
            parents_[i].store(static_cast<std::uint32_t>(i), std::memory_order_relaxed);
    }

    std::uint32_t root(std::uint32_t i) {
        for (;;) {
            std::uint32_t parent = parents_[i].load(std::memory_order_relaxed);
            if (parent == i)
                return i;
            const std::uint32_t above = parents_[parent].load(std::memory_order_relaxed);
            if (above != parent) // halve the path
                parents_[i].compare_exchange_weak(parent, above, std::memory_order_relaxed);
            i = above;
        }
    }

    void join(std::uint32_t a, std::uint32_t b) {
        for (;;) {
            a = root(a);
            b = root(b);
            if (a == b)
                return;
            if (a > b)
                std::swap(a, b);
            std::uint32_t expected = b; // still a root?
            if (parents_[b].compare_exchange_strong(expected, a, std::memory_order_relaxed)) {
                --n_sets_;
                return;
            }
        }
    }

    bool is_one() const { return n_sets_.load(std::memory_order_relaxed) == 1; }

  private:
    std::vector<std::atomic<std::uint32_t>> parents_;
    std::atomic<std::size_t> n_sets_;
};

// Joins a row with all rows that are offered.
struct Joiner : Sink {
    Joiner(std::int32_t distance_limit, std::uint32_t own_row, Sets &all_sets)
        : Sink{distance_limit, [](Sink &sink) { static_cast<Joiner &>(sink).consume(); }},
          row(own_row), sets(all_sets) {
        found = buffer;
        capacity = kOffered;
    }

    void consume() {
        for (std::size_t i = 0; i < n_found; ++i)
            sets.join(row, static_cast<std::uint32_t>(buffer[i].id));
        n_found = 0;
    }

    std::uint32_t row;
    Sets &sets;
    Neighbour buffer[kOffered];
};

// Compares all pairs as `search` does, and joins what it finds at once.
void join_all_pairs(const Codes &codes, std::size_t radius, const Schedule &schedule, Sets &sets) {
    const Database database{codes};
    const auto limit = static_cast<std::int32_t>(std::min(radius, 8 * codes.n_bytes) + 1);
    const auto join_tile = [&](std::size_t t, const Check &check) {
        if (sets.is_one())
            return;
        const std::size_t begin = t * kTileRows, n = std::min(kTileRows, codes.n - begin);
        std::vector<std::unique_ptr<Joiner>> joiners;
        std::vector<Sink *> sinks;
        for (std::size_t row = begin; row < begin + n; ++row) {
            joiners.push_back(
                std::make_unique<Joiner>(limit, static_cast<std::uint32_t>(row), sets));
            sinks.push_back(joiners.back().get());
        }
        scan_pairs({database,
                    {codes.row(begin), n, codes.n_bytes},
                    begin,
                    codes.n,
                    active_isa().search,
                    check},
                   sinks);
        for (const auto &one : joiners)
            one->consume();
        schedule.advance(share_of_pairs(begin, n, codes.n));
    };
    parallel_for((codes.n + kTileRows - 1) / kTileRows, schedule.n_threads, join_tile,
                 schedule.poll);
}

} // namespace

Pairs near_pairs(const Database &database, std::size_t radius, std::uint64_t max_results,
                 const Schedule &schedule) {
    std::optional<EqualParts> parts = EqualParts::choose(database.codes, radius, schedule.check());
    if (!parts)
        return pairs_within(database, radius, max_results, schedule);
    struct Pair {
        std::uint32_t first, second;
        std::int32_t distance;
    };
    std::vector<Pair> all;
    std::mutex mutex; // guards both
    std::uint64_t n_pairs = 0;
    parts->for_pairs(schedule, [&](std::uint32_t a, std::uint32_t b, std::int32_t distance) {
        std::lock_guard lock(mutex);
        ++n_pairs;
        if (n_pairs <= max_results)
            all.push_back({a, b, distance});
    });
    if (n_pairs > max_results)
        throw TooManyResults(n_pairs);
    std::sort(all.begin(), all.end(), [](const Pair &a, const Pair &b) {
        return a.first != b.first ? a.first < b.first : a.second < b.second;
    });
    Pairs pairs;
    for (const Pair &pair : all) {
        pairs.first.push_back(pair.first);
        pairs.second.push_back(pair.second);
        pairs.distances.push_back(pair.distance);
    }
    return pairs;
}

std::vector<std::int64_t> near_groups(const Codes &codes, std::size_t radius,
                                      const Schedule &schedule) {
    const Distinct distinct = group_equal(codes, codes.n, schedule.check());
    const Codes rows{distinct.codes.data(), distinct.first_member.size() - 1, codes.n_bytes};
    Sets sets(rows.n);
    if (radius > 0) { // at 0 the groups are the equal codes
        if (std::optional<EqualParts> parts = EqualParts::choose(rows, radius, schedule.check()))
            parts->for_pairs(
                schedule, [&](std::uint32_t a, std::uint32_t b, std::int32_t) { sets.join(a, b); });
        else
            join_all_pairs(rows, radius, schedule, sets);
    }
    std::vector<std::int64_t> groups(codes.n);
    for (std::size_t row = 0; row < rows.n; ++row) {
        // Rows are in the order of their first items, so a root has the smallest item.
        const std::uint32_t root = sets.root(static_cast<std::uint32_t>(row));
        const std::int64_t smallest = distinct.members[distinct.first_member[root]];
        for (std::size_t i = distinct.first_member[row]; i < distinct.first_member[row + 1]; ++i)
            groups[distinct.members[i]] = smallest;
    }
    return groups;
}

} // namespace ssbhash
