#include "core/search/balls.hpp"

#include "core/base/threads.hpp"
#include "core/search/database.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace ssbhash {
namespace {

constexpr std::size_t kMinCodes = 2048;
// 10 M posterior samples of 64 bits: groups of 2,400 to 40,000 codes skip about as much.
constexpr std::size_t kGroupCodes = 8192;
constexpr std::size_t kMaxCentres = 4096; // 8 MiB of distances for a tile
constexpr std::size_t kMinBytes = 5;      // for narrower codes the order takes as much memory
constexpr std::size_t kLevels = 256;      // of distances to a centre, in sorting
constexpr std::size_t kRun = 1 << 14;     // codes in a task
constexpr std::size_t kScatterRun = 1 << 20;
constexpr double kMinSkipped = 0.3; // share of the pairs of query and block
constexpr std::size_t kTrialQueries = 64, kTrialK = 10, kTrialCodes = 1024;
constexpr std::size_t kSample = 1 << 16; // codes that tell whether grouping all of them pays

// Returns the i-th of kTrialQueries evenly spaced rows.
const std::uint8_t *trial_query(const Codes &codes, std::size_t i) {
    return codes.row((2 * i + 1) * codes.n / (2 * kTrialQueries));
}

template <typename Do>
void for_runs(std::size_t n, std::size_t run, const Schedule &schedule, Do &&run_it) {
    const auto task = [&](std::size_t i, const Check &) {
        run_it(i * run, std::min((i + 1) * run, n));
    };
    parallel_for((n + run - 1) / run, schedule.n_threads, task, schedule.poll);
}

} // namespace

// Computes distances of one code to several. It owns their memory.
class Balls::Nearest {
  public:
    Nearest(const SearchKernels &kernels, std::size_t most) : kernels_(kernels), distances_(most) {}

    // Returns the first row at the least distance.
    std::size_t operator()(const Codes &rows, const std::uint8_t *code) {
        kernels_.row_distances(rows.data, rows.n, rows.n_bytes, code, distances_.data());
        const auto end = distances_.begin() + static_cast<std::ptrdiff_t>(rows.n);
        const auto least = std::min_element(distances_.begin(), end);
        distance = *least;
        return static_cast<std::size_t>(least - distances_.begin());
    }

    std::size_t distance = 0;

  private:
    const SearchKernels &kernels_;
    std::vector<std::uint16_t> distances_;
};

void gather(const Codes &codes, const std::uint32_t *ids, std::size_t n, std::uint8_t *rows) {
    if (codes.n_bytes == 8) { // a constant size, so that the copy is one move
        for (std::size_t i = 0; i < n; ++i)
            std::memcpy(rows + 8 * i, codes.data + 8 * std::size_t{ids[i]}, 8);
        return;
    }
    for (std::size_t i = 0; i < n; ++i)
        std::memcpy(rows + i * codes.n_bytes, codes.row(ids[i]), codes.n_bytes);
}

std::unique_ptr<const Balls> Balls::group(const Codes &codes, const SearchKernels &kernels,
                                          const Schedule &schedule) {
    if (codes.n < kMinCodes || codes.n > std::numeric_limits<std::uint32_t>::max() ||
        codes.n_bytes < kMinBytes || units_of(codes.n_bytes) > kMaxUnits)
        return nullptr;
    std::unique_ptr<Balls> balls(new Balls(codes, kernels));
    if (codes.n >= 8 * kSample && balls->share_expected(codes, kernels) < kMinSkipped / 2)
        return nullptr;
    balls->sort(codes, kernels, schedule);
    balls->bound(codes, kernels, schedule);
    if (balls->share_skipped(codes, kernels) < kMinSkipped)
        return nullptr;
    return balls;
}

Balls::Balls(const Codes &codes, const SearchKernels &kernels) : n_bytes_(codes.n_bytes) {
    draw_centres(codes, kernels);
}

std::size_t Balls::n_bytes_total() const {
    return centres_.size() + coarse_.size() + sizeof(std::size_t) * owned_.size() +
           sizeof(std::uint32_t) * (first_.size() + order_.size()) + sizeof(Ball) * balls_.size();
}

// Centres are evenly spaced codes. Every sqrt(n)-th centre is also a coarse one, and owns the
// centres that are nearest to it.
void Balls::draw_centres(const Codes &codes, const SearchKernels &kernels) {
    const std::size_t n =
        std::clamp(codes.n / kGroupCodes, std::min<std::size_t>(64, codes.n / 512), kMaxCentres);
    const auto n_coarse = static_cast<std::size_t>(std::sqrt(static_cast<double>(n)));
    const std::size_t step = codes.n / n;
    coarse_.resize(n_coarse * n_bytes_);
    for (std::size_t i = 0; i < n_coarse; ++i)
        std::copy_n(codes.row(i * (n / n_coarse) * step), n_bytes_, coarse_.data() + i * n_bytes_);
    Nearest nearest(kernels, n_coarse);
    std::vector<std::vector<std::size_t>> owned(n_coarse);
    for (std::size_t i = 0; i < n; ++i)
        owned[nearest({coarse_.data(), n_coarse, n_bytes_}, codes.row(i * step))].push_back(i *
                                                                                            step);
    owned_.push_back(0);
    for (const auto &some : owned) {
        for (std::size_t id : some)
            centres_.insert(centres_.end(), codes.row(id), codes.row(id) + n_bytes_);
        owned_.push_back(owned_.back() + some.size());
    }
}

// Returns the centre that is (nearly always) nearest to a code, and its distance.
Balls::Place Balls::place(const std::uint8_t *code, Nearest &nearest) const {
    const std::size_t own = nearest({coarse_.data(), owned_.size() - 1, n_bytes_}, code);
    const Codes some{centres_.data() + owned_[own] * n_bytes_, owned_[own + 1] - owned_[own],
                     n_bytes_};
    const std::size_t centre = owned_[own] + nearest(some, code);
    return {centre, nearest.distance};
}

// Sorts by (centre, distance to it, id), by counting.
void Balls::sort(const Codes &codes, const SearchKernels &kernels, const Schedule &schedule) {
    const std::size_t n_centres = owned_.back();
    const std::size_t width = (8 * n_bytes_ + kLevels) / kLevels; // distances in a level
    std::vector<std::uint32_t> keys(codes.n);
    for_runs(codes.n, kRun, schedule, [&](std::size_t begin, std::size_t end) {
        Nearest nearest(kernels, n_centres);
        for (std::size_t i = begin; i < end; ++i) {
            const Place at = place(codes.row(i), nearest);
            keys[i] = static_cast<std::uint32_t>(at.centre * kLevels + at.distance / width);
        }
    });
    const Schedule in_order{1, schedule.poll};
    std::vector<std::uint32_t> next(n_centres * kLevels + 1, 0);
    for_runs(codes.n, kScatterRun, in_order, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            ++next[keys[i] + 1];
    });
    for (std::size_t key = 1; key < next.size(); ++key)
        next[key] += next[key - 1];
    for (std::size_t centre = 0; centre < n_centres; ++centre)
        first_.push_back(next[centre * kLevels]);
    order_.resize(codes.n);
    for_runs(codes.n, kScatterRun, in_order, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            order_[next[keys[i]]++] = static_cast<std::uint32_t>(i);
    });
}

void Balls::bound(const Codes &codes, const SearchKernels &kernels, const Schedule &schedule) {
    const std::size_t n = kernels.block_codes;
    balls_.resize((codes.n + n - 1) / n);
    for_runs(balls_.size(), kRun / n, schedule, [&](std::size_t begin, std::size_t end) {
        Scratch rows(n * n_bytes_);
        std::vector<std::uint16_t> distances(n);
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint32_t *ids = order_.data() + i * n;
            const auto stop = static_cast<std::ptrdiff_t>(std::min(n, codes.n - i * n));
            gather(codes, ids, static_cast<std::size_t>(stop), rows.data());
            // the last group that begins at the block's first code or before it
            const auto after = std::upper_bound(first_.begin(), first_.end(), i * n);
            const std::size_t centre = static_cast<std::size_t>(after - first_.begin()) - 1;
            kernels.row_distances(rows.data(), static_cast<std::size_t>(stop), n_bytes_,
                                  centres().row(centre), distances.data());
            const auto ends = std::minmax_element(distances.begin(), distances.begin() + stop);
            balls_[i] = {static_cast<std::uint32_t>(centre), *std::min_element(ids, ids + stop),
                         static_cast<std::int16_t>(*ends.first),
                         static_cast<std::int16_t>(*ends.second)};
        }
    });
}

// Estimates the share of pairs (query, code) that would be skipped if each block were one shell.
// The limit is the least distance in a sample. This recognises uniform codes in 5% of the time that
// grouping them takes.
double Balls::share_expected(const Codes &codes, const SearchKernels &kernels) const {
    const std::size_t step = codes.n / kSample;
    Scratch rows(kSample * n_bytes_);
    std::vector<Ball> shells(kSample);
    Nearest nearest(kernels, std::max(kSample, owned_.back()));
    for (std::size_t i = 0; i < kSample; ++i) {
        std::copy_n(codes.row(i * step), n_bytes_, rows.data() + i * n_bytes_);
        const Place at = place(codes.row(i * step), nearest);
        const auto distance = static_cast<std::int16_t>(at.distance);
        shells[i] = {static_cast<std::uint32_t>(at.centre), 0, distance, distance};
    }
    std::vector<std::uint16_t> from(owned_.back());
    std::size_t skipped = 0;
    for (std::size_t i = 0; i < kTrialQueries; ++i) {
        const std::uint8_t *query = trial_query(codes, i);
        nearest({rows.data(), kSample, n_bytes_}, query);
        const auto limit = static_cast<std::int32_t>(nearest.distance) + 1;
        kernels.row_distances(centres_.data(), from.size(), n_bytes_, query, from.data());
        for (const Ball &shell : shells)
            skipped += !shell.can_hold(from[shell.centre], limit);
    }
    return static_cast<double>(skipped) / static_cast<double>(kTrialQueries * kSample);
}

// Measures the share that is skipped, with the real blocks and the first limits of a search.
double Balls::share_skipped(const Codes &codes, const SearchKernels &kernels) const {
    Scratch rows(kTrialQueries * n_bytes_);
    for (std::size_t i = 0; i < kTrialQueries; ++i)
        std::copy_n(trial_query(codes, i), n_bytes_, rows.data() + i * n_bytes_);
    const Database database{codes};
    Bounds bounds(*this, database, {rows.data(), kTrialQueries, n_bytes_}, kernels);
    const std::vector<std::int32_t> limits =
        bounds.first_limits(kTrialK, std::min(kTrialCodes, codes.n / 16));
    std::size_t skipped = 0;
    for (std::size_t query = 0; query < kTrialQueries; ++query)
        for (const Ball &ball : balls_)
            skipped += !ball.can_hold(bounds.distance(query, ball.centre), limits[query]);
    return static_cast<double>(skipped) / static_cast<double>(kTrialQueries * balls_.size());
}

Bounds::Bounds(const Balls &balls, const Database &database, const Codes &queries,
               const SearchKernels &kernels)
    : balls_(balls), database_(database), queries_(queries), kernels_(kernels),
      distances_(balls.centres().n * queries.n),
      limits_(queries.n, static_cast<std::int16_t>(8 * queries.n_bytes + 1)),
      passed_((queries.n + 3) / 4 * 4, 0) {
    const Codes centres = balls.centres();
    std::vector<std::uint16_t> row(queries.n);
    for (std::size_t i = 0; i < centres.n; ++i) {
        kernels.row_distances(queries.data, queries.n, queries.n_bytes, centres.row(i), row.data());
        std::copy(row.begin(), row.end(), distances_.data() + i * queries.n);
    }
}

// Returns for each query the first centre at the least distance.
std::vector<std::uint32_t> Bounds::nearest_centres() const {
    std::vector<std::uint32_t> nearest(queries_.n, 0);
    std::vector<std::int16_t> least(distances_.begin(),
                                    distances_.begin() + static_cast<std::ptrdiff_t>(queries_.n));
    for (std::uint32_t centre = 1; centre < balls_.centres().n; ++centre) {
        const std::int16_t *from = distances_.data() + centre * queries_.n;
        for (std::size_t query = 0; query < queries_.n; ++query) {
            nearest[query] = from[query] < least[query] ? centre : nearest[query];
            least[query] = std::min(least[query], from[query]);
        }
    }
    return nearest;
}

// Takes up to n allowed codes from position `begin` on. If few are allowed there, takes evenly
// spaced ones of all rows instead.
void Bounds::take_sample(std::size_t begin, std::size_t n) {
    const std::size_t n_codes = database_.codes.n;
    const std::uint32_t *order = balls_.order();
    ids_.clear();
    const auto take = [&](std::size_t position) {
        if (database_.is_allowed(order[position]))
            ids_.push_back(order[position]);
    };
    for (std::size_t i = begin; i < std::min(begin + 4 * n, n_codes) && ids_.size() < n; ++i)
        take(i);
    const std::size_t step = std::max<std::size_t>(1, n_codes / (16 * n));
    if (ids_.size() < n / 2)
        for (ids_.clear(), begin = 0; begin < n_codes && ids_.size() < n; begin += step)
            take(begin);
    rows_.resize(ids_.size() * database_.codes.n_bytes);
    gather(database_.codes, ids_.data(), ids_.size(), rows_.data());
}

std::vector<std::int32_t> Bounds::first_limits(std::size_t k, std::size_t n) {
    const Codes &codes = database_.codes;
    const std::vector<std::uint32_t> nearest = nearest_centres();
    std::vector<std::uint32_t> queries(queries_.n);
    std::iota(queries.begin(), queries.end(), 0u);
    std::sort(queries.begin(), queries.end(), // those around one centre share its sample
              [&](std::uint32_t a, std::uint32_t b) { return nearest[a] < nearest[b]; });
    std::vector<std::int32_t> limits(queries_.n, static_cast<std::int32_t>(8 * codes.n_bytes) + 1);
    std::vector<std::uint16_t> distances(n);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        const std::uint32_t query = queries[i], centre = nearest[query];
        if (i == 0 || centre != nearest[queries[i - 1]])
            take_sample(std::min(balls_.first(centre), codes.n - n), n);
        if (ids_.size() < k)
            continue;
        kernels_.row_distances(rows_.data(), ids_.size(), codes.n_bytes, queries_.row(query),
                               distances.data());
        const auto kth = distances.begin() + static_cast<std::ptrdiff_t>(k - 1);
        std::nth_element(distances.begin(), kth,
                         distances.begin() + static_cast<std::ptrdiff_t>(ids_.size()));
        limits[query] = *kth + 1;
    }
    return limits;
}

void Bounds::choose(std::size_t block, Tile &tile) {
    const Ball &ball = balls_.of_block(block);
    const std::int16_t *from = distances_.data() + ball.centre * queries_.n;
    const std::int16_t nearest = ball.nearest, farthest = ball.farthest;
    // Ball::can_hold in 16 bits, so that the compiler does eight slots at a time
    for (std::size_t slot = 0; slot < queries_.n; ++slot) {
        const std::int16_t most = static_cast<std::int16_t>(limits_[slot] + farthest);
        const std::int16_t least = static_cast<std::int16_t>(nearest - limits_[slot]);
        passed_[slot] = static_cast<std::int16_t>((from[slot] < most) & (from[slot] > least));
    }
    tile.n_chosen = 0;
    for (std::size_t first = 0; first < queries_.n; first += 4) {
        std::uint64_t four;
        std::memcpy(&four, passed_.data() + first, sizeof(four));
        for (; four; four &= four - 1) {
            const std::size_t slot = first + static_cast<std::size_t>(__builtin_ctzll(four)) / 16;
            const Sink &sink = *tile.sinks[slot];
            limits_[slot] = static_cast<std::int16_t>(sink.limit);
            // no tie of this block can win
            const bool ties_lose = sink.last_id <= static_cast<std::int64_t>(ball.first_id);
            if (ball.can_hold(from[slot], sink.limit - ties_lose))
                tile.chosen[tile.n_chosen++] = static_cast<std::uint32_t>(slot);
        }
    }
}

} // namespace ssbhash
