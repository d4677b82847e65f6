// Every instruction set that runs here, and the 64-byte word, against plain loops.
// Exits with status 1 at the first difference.
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/search/radius.hpp"
#include "core/search/scan.hpp"
#include "core/search/search.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <thread>

using namespace ssbhash;

namespace ssbhash::wide_word {
extern const SearchKernels search_kernels;
}

void check_training(); // training_tests.cpp

namespace {

std::mt19937_64 generator(1);
int n_checks = 0;

void require(bool condition, const char *what, const InstructionSet &isa, std::size_t n_bytes,
             std::size_t n, std::size_t n_queries, std::size_t parameter) {
    ++n_checks;
    if (condition)
        return;
    std::printf("FAILED: %s, %s, n_bytes %zu, n %zu, queries %zu, parameter %zu\n", what, isa.name,
                n_bytes, n, n_queries, parameter);
    std::exit(1);
}

// Codes around a few centres: ties, duplicates and far codes all occur.
std::vector<std::uint8_t> make_codes(std::size_t n, std::size_t n_bytes, unsigned noise) {
    std::vector<std::uint8_t> centres(3 * n_bytes), codes(n * n_bytes);
    for (auto &byte : centres)
        byte = static_cast<std::uint8_t>(generator());
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t centre = generator() % 3;
        for (std::size_t j = 0; j < n_bytes; ++j) {
            std::uint8_t flips = 0xff;
            for (unsigned r = 0; r < noise; ++r)
                flips &= static_cast<std::uint8_t>(generator());
            codes[i * n_bytes + j] = centres[centre * n_bytes + j] ^ (noise > 5 ? 0 : flips);
        }
    }
    return codes;
}

std::int32_t plain_distance(const std::uint8_t *a, const std::uint8_t *b, std::size_t n_bytes) {
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < n_bytes; ++j)
        sum += std::popcount(static_cast<std::uint8_t>(a[j] ^ b[j]));
    return sum;
}

std::vector<Neighbour> plain_order(const Database &database, const std::uint8_t *query) {
    std::vector<Neighbour> all;
    for (std::size_t i = 0; i < database.n(); ++i)
        if (database.is_allowed(i))
            all.push_back({plain_distance(database.row(i), query, database.codes.n_bytes),
                           static_cast<std::int64_t>(database.id(i))});
    std::stable_sort(all.begin(), all.end(), [](const Neighbour &a, const Neighbour &b) {
        return a.distance < b.distance;
    });
    return all;
}

bool same(std::vector<Neighbour> found, const std::vector<Neighbour> &expected, std::size_t n_bytes,
          std::size_t count, bool by_id) {
    if (by_id)
        sort_by_distance(found, 8 * n_bytes);
    else
        sort_by_distance_id(found);
    return found.size() == count && std::equal(found.begin(), found.end(), expected.begin(),
                                               [](const Neighbour &a, const Neighbour &b) {
                                                   return a.distance == b.distance && a.id == b.id;
                                               });
}

const Check no_check = [] {};

void check_scans(const Database &database, const Codes &queries, const InstructionSet &isa) {
    const std::size_t n_bytes = queries.n_bytes, n = database.n();
    const bool by_id = database.balls() == nullptr;
    const ScanTask task{database, queries, 0, n, isa.search, no_check};
    std::vector<std::vector<Neighbour>> expected;
    for (std::size_t q = 0; q < queries.n; ++q)
        expected.push_back(plain_order(database, queries.row(q)));
    for (std::size_t k : {std::size_t{1}, std::size_t{10}, std::size_t{100}, n})
        if (k > 0 && k <= expected[0].size()) {
            const auto found = scan_nearest(task, k, 8 * n_bytes);
            for (std::size_t q = 0; q < queries.n; ++q)
                require(same(found[q]->take(), expected[q], n_bytes, k, by_id), "nearest", isa,
                        n_bytes, n, queries.n, k);
        }
    const std::vector<std::size_t> radii{0, 3, 2 * n_bytes, 3 * n_bytes + 1};
    const Schedule schedule{2, {}};
    for (std::size_t r = 0; r < radii.size(); ++r) {
        std::vector<std::int64_t> radius(queries.n); // one of its own for each query
        for (std::size_t q = 0; q < queries.n; ++q)
            radius[q] = static_cast<std::int64_t>(radii[(r + q) % radii.size()]);
        const Range range = within(database, queries, radius.data(), ~std::uint64_t{0}, schedule);
        const auto counts = count_within(database, queries, radius.data(), schedule);
        for (std::size_t q = 0; q < queries.n; ++q) {
            const auto count = static_cast<std::size_t>(
                std::count_if(expected[q].begin(), expected[q].end(),
                              [&](const Neighbour &one) { return one.distance <= radius[q]; }));
            std::vector<Neighbour> found;
            for (auto i = static_cast<std::size_t>(range.lims[q]);
                 i < static_cast<std::size_t>(range.lims[q + 1]); ++i)
                found.push_back({range.distances[i], range.ids[i]});
            require(counts[q] == static_cast<std::int64_t>(count) &&
                        same(found, expected[q], n_bytes, count, true),
                    "within", isa, n_bytes, n, queries.n, radii[r]);
        }
    }
}

// Returns how many of the prepared databases were put into an order of their own.
std::size_t check_width(std::size_t n_bytes, const InstructionSet &isa) {
    std::size_t n_ordered = 0;
    for (std::size_t n : {1, 255, 513, 2100})
        for (std::size_t n_queries : {1, 11})
            for (unsigned noise : {1u, 3u, 6u}) {
                // exactly as long as the rows: a read beyond the end is caught
                const auto data = make_codes(n, n_bytes, noise);
                auto asked = make_codes(n_queries, n_bytes, 1);
                std::copy_n(data.begin(), n_bytes, asked.begin());
                const Codes codes{data.data(), n, n_bytes};
                const Codes queries{asked.data(), n_queries, n_bytes};
                Database database{codes};
                check_scans(database, queries, isa);
                const Planes planes(codes, isa, {2, {}});
                n_ordered += planes.balls() != nullptr;
                database.planes = &planes;
                check_scans(database, queries, isa);
                std::vector<std::uint8_t> allowed((n + 7) / 8);
                for (auto &byte : allowed)
                    byte = static_cast<std::uint8_t>(generator() | generator());
                database.allowed = allowed.data();
                check_scans(database, queries, isa);
                database.planes = nullptr;
                check_scans(database, queries, isa);
                database.planes = &planes;
                database.allowed = nullptr;
                std::vector<std::int64_t> ids;
                for (std::size_t i = 0; i < n; i += 1 + generator() % 3)
                    ids.push_back(static_cast<std::int64_t>(i));
                database.ids = ids.data();
                database.n_ids = ids.size();
                check_scans(database, queries, isa);
            }
    return n_ordered;
}

// Rows that change under prepared planes, or between two scans: results may be wrong, but they
// are rows of the database or missing, and nothing outside of memory is read.
void check_changed_rows(const InstructionSet &isa) {
    constexpr std::size_t n = 6000, n_bytes = 8, n_queries = 11, k = 40;
    for (unsigned noise : {1u, 3u, 6u}) {
        auto data = make_codes(n, n_bytes, noise);
        const auto asked = make_codes(n_queries, n_bytes, 2);
        const Codes codes{data.data(), n, n_bytes}, queries{asked.data(), n_queries, n_bytes};
        const Planes planes(codes, isa, {2, {}});
        Database database{codes};
        database.planes = &planes;
        std::atomic<bool> stop{false};
        std::thread changes([&] {
            std::mt19937_64 random(3);
            while (!stop)
                reinterpret_cast<std::atomic<std::uint8_t> &>(data[random() % data.size()]) =
                    static_cast<std::uint8_t>(random());
        });
        for (int repeat = 0; repeat < 5; ++repeat) {
            std::vector<std::int32_t> distances(n_queries * k, -7);
            std::vector<std::int64_t> ids(n_queries * k, -7);
            search(database, queries, k, {2, {}}, distances.data(), ids.data());
            const std::vector<std::int64_t> radii(n_queries, 20);
            Range range = within(database, queries, radii.data(), ~std::uint64_t{0}, {2, {}});
            const Pairs pairs = pairs_within(database, 3, ~std::uint64_t{0}, {2, {}});
            ids.insert(ids.end(), range.ids.begin(), range.ids.end());
            ids.insert(ids.end(), pairs.second.begin(), pairs.second.end());
            require(std::all_of(ids.begin(), ids.end(),
                                [](std::int64_t id) {
                                    return id >= -1 && id < static_cast<std::int64_t>(n);
                                }),
                    "changed rows", isa, n_bytes, n, n_queries, noise);
        }
        stop = true;
        changes.join();
    }
}

// Long calls ask whether to stop.
void check_interrupts(const InstructionSet &isa) {
    constexpr std::size_t n = 5000, n_bytes = 8, n_queries = 300, k = 3;
    const auto data = make_codes(n, n_bytes, 3);
    const Codes codes{data.data(), n, n_bytes}, queries{data.data(), n_queries, n_bytes};
    const Schedule stopped{1, [] { return true; }}; // a helper may do all before the caller asks
    std::vector<std::int32_t> distances(n_queries * k, 1);
    std::vector<std::int64_t> ids(n_queries * k, 1);
    const std::vector<std::int64_t> radii(n_queries, 20);
    const auto interrupts = [&](const char *what, const auto &call) {
        bool thrown = false;
        try {
            call();
        } catch (const Interrupted &) {
            thrown = true;
        }
        require(thrown, what, isa, n_bytes, n, n_queries, 0);
    };
    interrupts("prepare", [&] { const Planes planes(codes, isa, stopped); });
    interrupts("merge", [&] {
        merge({{distances.data(), ids.data(), k}}, n_queries, k, stopped, distances.data(),
              ids.data());
    });
    interrupts("within", [&] { within({codes}, queries, radii.data(), 1u << 30, stopped); });
    interrupts("pairs", [&] { pairs_within({codes}, 3, 1u << 30, stopped); });
}

void check_threads() {
    std::vector<int> done(1000, 0);
    parallel_for(done.size(), 4, [&](std::size_t i, const Check &) { ++done[i]; });
    bool thrown = false;
    try {
        parallel_for(100, 4, [](std::size_t i, const Check &) {
            if (i == 57)
                throw std::runtime_error("task");
        });
    } catch (const std::runtime_error &) {
        thrown = true;
    }
    bool stopped = false;
    try {
        parallel_for(
            1000, 2,
            [](std::size_t, const Check &check) {
                for (;;) // else one thread may finish all before the other asks
                    check();
            },
            [] { return true; });
    } catch (const Interrupted &) {
        stopped = true;
    }
    if (std::count(done.begin(), done.end(), 1) != 1000 || !thrown || !stopped) {
        std::printf("FAILED: threads\n");
        std::exit(1);
    }
}

} // namespace

int main() {
    const InstructionSet &any = *available_isas().back();
    const InstructionSet wide_word = {"wide_word", wide_word::search_kernels, any.sampling,
                                      any.training};
    std::vector<const InstructionSet *> all = available_isas();
    all.push_back(&wide_word);
    for (const InstructionSet *isa : all) {
        std::size_t n_ordered = 0;
        for (std::size_t n_bytes : {1,  2,  3,  4,  5,  6,  7,  8,   9,   10,  12, 14,
                                    16, 17, 24, 32, 33, 64, 65, 128, 257, 512, 513})
            n_ordered += check_width(n_bytes, *isa);
        check_changed_rows(*isa);
        check_interrupts(*isa);
        require(n_ordered >= 10, "ordered", *isa, 0, 0, 0, n_ordered);
        std::printf("%s: ok, %zu ordered\n", isa->name, n_ordered);
    }
    check_threads();
    check_training();
    std::printf("core_tests: %d checks passed\n", n_checks);
}
