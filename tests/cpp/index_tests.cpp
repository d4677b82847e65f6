// Threads search one segment with tables, while each filters it in its own way, and find groups.
// Results are compared with `search` over all rows. Exits with status 1 at the first difference.
// Under the thread sanitizer (.ci/cpp-tests) this also shows that they share nothing unguarded.
#include "core/base/dispatch.hpp"
#include "core/index/collector.hpp"
#include "core/index/index_search.hpp"
#include "core/index/near_pairs.hpp"
#include "core/search/search.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <random>
#include <thread>

using namespace ssbhash;

namespace {

constexpr std::size_t kBytes = 8, kRows = 20'000, kQueries = 80, kNearest = 5;

// Half of the codes lie near one of 50 centres.
std::vector<std::uint8_t> make_codes(std::size_t n, unsigned seed) {
    std::mt19937_64 centres(1), generator(seed);
    std::uint64_t near[50];
    for (std::uint64_t &centre : near)
        centre = centres();
    std::vector<std::uint8_t> codes;
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t flips = generator() & generator() & generator() & generator();
        const std::uint64_t code = i % 2 ? generator() : near[generator() % 50] ^ flips;
        for (std::size_t j = 0; j < kBytes; ++j)
            codes.push_back(static_cast<std::uint8_t>(code >> 8 * j));
    }
    return codes;
}

struct Built {
    explicit Built(const Codes &codes) : parts(kBytes, 5) {
        segment.codes = codes;
        segment.n_items = codes.n;
        segment.parts = &parts;
        for (std::size_t t = 0; t < parts.n_tables(); ++t) {
            starts.emplace_back((std::size_t{1} << parts.width(t)) + 1);
            rows.emplace_back(codes.n * row_bytes(codes.n));
            copies.emplace_back(codes.n * kBytes);
            build_table(codes, parts, t, starts[t].data(), rows[t].data(), copies[t].data(), [] {});
            segment.tables.push_back({starts[t].data(), rows[t].data(), copies[t].data()});
        }
    }

    Parts parts;
    std::vector<std::vector<std::uint32_t>> starts;
    std::vector<std::vector<std::uint8_t>> rows, copies;
    Segment segment;
};

std::atomic<std::size_t> n_checks = 0, n_wrong = 0;

void check_filtered(const Segment &segment, const Codes &queries, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::vector<std::uint8_t> allowed(kRows / 8);
    for (std::uint8_t &byte : allowed)
        byte = static_cast<std::uint8_t>(seed % 2 ? generator() : generator() | generator());
    Segment own = segment;
    own.allowed = allowed.data();
    Database database{segment.codes};
    database.allowed = allowed.data();
    const Schedule schedule{2, nullptr};
    std::vector<std::int32_t> distances(queries.n * kNearest);
    std::vector<std::int64_t> ids(queries.n * kNearest);
    search(database, queries, kNearest, schedule, distances.data(), ids.data());
    const auto check = [&](const std::vector<Neighbour> &found, std::size_t i) {
        for (std::size_t j = 0; j < kNearest; ++j, ++n_checks)
            if (found.size() != kNearest || found[j].id != ids[i * kNearest + j] ||
                found[j].distance != distances[i * kNearest + j])
                ++n_wrong;
    };
    const auto found = search_index({own}, {queries, kNearest, 8 * kBytes, nullptr}, schedule);
    for (std::size_t i = 0; i < queries.n; ++i) {
        check(found[i], i);
        // The tables alone, however much they cost.
        Collector collector(own, {queries.row(i), kNearest, 8 * kBytes + 1, kNoId, {}},
                            active_isa().search);
        n_wrong += !collector.probe(std::numeric_limits<double>::infinity(), [] {});
        check(collector.take(), i);
    }
}

} // namespace

int main() {
    const std::vector<std::uint8_t> rows = make_codes(kRows, 2), asked = make_codes(kQueries, 3);
    const Codes codes{rows.data(), kRows, kBytes}, queries{asked.data(), kQueries, kBytes};
    const Built built(codes);
    const std::vector<std::int64_t> expected = near_groups(codes, 2, {1, nullptr});
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed)
        threads.emplace_back([&, seed] {
            for (unsigned turn = 0; turn < 3; ++turn) {
                check_filtered(built.segment, queries, 4 * turn + seed);
                const Codes single{asked.data() + seed * kBytes, 1, kBytes};
                check_filtered(built.segment, single, 4 * turn + seed);
            }
            n_wrong += near_groups(codes, 2, {2, nullptr}) != expected;
        });
    for (std::thread &thread : threads)
        thread.join();
    std::printf("index_tests: %zu checks, %zu wrong\n", n_checks.load(), n_wrong.load());
    return n_wrong != 0;
}
