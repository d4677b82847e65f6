// The search kernels' own source under the emulator, against brute force.
#include "cuda/search.cu"

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include <sys/mman.h>

using namespace ssbhash::cuda::searching;

namespace {

// Memory that ends where the next access faults: a lost bound shows at once.
template <typename T>
class Guarded {
  public:
    explicit Guarded(std::size_t n, T value = {}) : n_(n) {
        const std::size_t n_pages = (n * sizeof(T) + kPage - 1) / kPage;
        mapped_ = (n_pages + 1) * kPage;
        void *memory =
            mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        start_ = static_cast<std::uint8_t *>(memory);
        mprotect(start_ + n_pages * kPage, kPage, PROT_NONE);
        data_ = reinterpret_cast<T *>(start_ + n_pages * kPage) - n;
        std::fill_n(data_, n, value);
    }
    explicit Guarded(const std::vector<T> &values) : Guarded(values.size()) {
        std::copy(values.begin(), values.end(), data_);
    }
    ~Guarded() { munmap(start_, mapped_); }
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;

    T *data() const { return data_; }
    T &operator[](std::size_t i) const { return data_[i]; }

  private:
    static constexpr std::size_t kPage = 4096;
    std::size_t n_, mapped_;
    std::uint8_t *start_;
    T *data_;
};

struct Problem {
    int n_bytes;
    std::int64_t n, n_queries, k;
    double density;          // of set bits
    std::int64_t n_distinct; // codes drawn from this many; 0: all differ
    int n_slices;
    bool has_mask;
};

std::vector<std::uint8_t> random_bytes(std::mt19937_64 &random, std::int64_t n, double density) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n));
    std::bernoulli_distribution is_set(density);
    for (auto &byte : bytes)
        for (int bit = 0; bit < 8; ++bit)
            byte |= static_cast<std::uint8_t>(is_set(random) << bit);
    return bytes;
}

std::int32_t exact_distance(const std::uint8_t *a, const std::uint8_t *b, int n_bytes) {
    std::int32_t sum = 0;
    for (int i = 0; i < n_bytes; ++i)
        sum += __builtin_popcount(a[i] ^ b[i]);
    return sum;
}

bool passes(const Problem &p, Kernel kernel) {
    std::mt19937_64 random(1);
    auto all_rows = random_bytes(random, p.n * p.n_bytes, p.density);
    if (p.n_distinct > 0)
        for (std::int64_t i = p.n_distinct; i < p.n; ++i)
            std::copy_n(all_rows.begin() +
                            static_cast<std::int64_t>(random() % p.n_distinct) * p.n_bytes,
                        p.n_bytes, all_rows.begin() + i * p.n_bytes);
    const Guarded<std::uint8_t> rows(all_rows);
    const Guarded<std::uint8_t> queries(random_bytes(random, p.n_queries * p.n_bytes, p.density));
    const auto n_words = static_cast<std::size_t>(p.n + 31) / 32;
    const Guarded<std::uint32_t> allowed(n_words, ~0u);
    if (p.has_mask)
        for (std::size_t i = 0; i < n_words; ++i)
            allowed[i] = static_cast<std::uint32_t>(random());

    const DeviceCodes codes{rows.data(), p.n, p.n_bytes};
    const Guarded<std::uint32_t> planes(static_cast<std::size_t>(plane_words(p.n, p.n_bytes)));
    if (make_planes(codes, planes.data(), nullptr) != cudaSuccess)
        return false;
    const int n_slices = p.n_slices;
    const std::int64_t capacity = p.k + 32;
    const auto n_pairs = static_cast<std::size_t>(p.n_queries * n_slices);
    const Guarded<std::int32_t> limits(static_cast<std::size_t>(p.n_queries), 8 * p.n_bytes + 1);
    const Guarded<std::uint32_t> counts(
        static_cast<std::size_t>(p.n_queries * (8 * p.n_bytes + 1)));
    const Guarded<std::int64_t> found(n_pairs * static_cast<std::size_t>(capacity), kNothingFound);
    const Guarded<std::int64_t> n_found(n_pairs);
    const Guarded<std::uint8_t> scratch(
        static_cast<std::size_t>(scratch_bytes(p.n_queries, p.n_bytes)));
    Search search{kernel,
                  codes,
                  planes.data(),
                  p.has_mask ? allowed.data() : nullptr,
                  0,
                  queries.data(),
                  p.n_queries,
                  p.k,
                  limits.data(),
                  counts.data(),
                  nullptr,
                  found.data(),
                  n_found.data(),
                  capacity,
                  n_slices};
    const Guarded<std::int64_t> nearest(static_cast<std::size_t>(p.n_queries * p.k), -1);
    if ((p.n > 1000 && sample_limits(search, 700, nullptr) != cudaSuccess) ||
        scan(search, scratch.data(), nullptr) != cudaSuccess ||
        select_nearest(search, nearest.data(), nullptr) != cudaSuccess)
        return false;
    for (std::int64_t query = 0; query < p.n_queries; ++query) {
        std::vector<std::int64_t> expected;
        for (std::int64_t i = 0; i < p.n; ++i)
            if (allowed[static_cast<std::size_t>(i / 32)] >> (i % 32) & 1)
                expected.push_back(
                    std::int64_t{exact_distance(rows.data() + i * p.n_bytes,
                                                queries.data() + query * p.n_bytes, p.n_bytes)}
                        << kIdBits |
                    i);
        std::sort(expected.begin(), expected.end());
        expected.resize(static_cast<std::size_t>(p.k), kNothingFound);
        auto *got = nearest.data() + query * p.k;
        const auto id_of = [](std::int64_t key) {
            return key & ((std::int64_t{1} << kIdBits) - 1);
        };
        if (!std::is_sorted(got, got + p.k, [&](auto a, auto b) { return id_of(a) < id_of(b); }))
            return false;
        std::sort(got, got + p.k);
        if (!std::equal(expected.begin(), expected.end(), got))
            return false;
    }
    return true;
}

// All codes are within the radius, but each list has room for three only, as if rows had changed
// since they were counted.
bool keeps_to_counted_space(Kernel kernel) {
    constexpr std::int64_t n = 2500, n_queries = 5, n_slices = 2, room = 3;
    std::mt19937_64 random(2);
    const Guarded<std::uint8_t> rows(random_bytes(random, n * 8, 0.5));
    const Guarded<std::uint8_t> queries(random_bytes(random, n_queries * 8, 0.5));
    const DeviceCodes codes{rows.data(), n, 8};
    const Guarded<std::uint32_t> planes(static_cast<std::size_t>(plane_words(n, 8)));
    const Guarded<std::int32_t> limits(n_queries, 65);
    const Guarded<std::int64_t> starts(n_queries * n_slices + 1);
    for (std::size_t i = 0; i <= n_queries * n_slices; ++i)
        starts[i] = static_cast<std::int64_t>(i) * room;
    const Guarded<std::int64_t> found(n_queries * n_slices * room, kNothingFound);
    const Guarded<std::int64_t> n_found(n_queries * n_slices);
    const Guarded<std::uint8_t> scratch(static_cast<std::size_t>(scratch_bytes(n_queries, 8)));
    if (make_planes(codes, planes.data(), nullptr) != cudaSuccess)
        return false;
    const Search search{kernel,
                        codes,
                        planes.data(),
                        nullptr,
                        0,
                        queries.data(),
                        n_queries,
                        0,
                        limits.data(),
                        nullptr,
                        starts.data(),
                        found.data(),
                        n_found.data(),
                        0,
                        n_slices};
    if (scan(search, scratch.data(), nullptr) != cudaSuccess)
        return false;
    const std::int64_t id_mask = (std::int64_t{1} << kIdBits) - 1;
    for (std::size_t query = 0; query < n_queries; ++query) {
        if (n_found[2 * query] + n_found[2 * query + 1] != n)
            return false;
        for (std::size_t i = 0; i < room; ++i)
            if ((found[query * n_slices * room + i] & id_mask) != static_cast<std::int64_t>(i))
                return false;
    }
    return true;
}

} // namespace

int main() {
    for (const Kernel kernel : {Kernel::rows, Kernel::planes, Kernel::matrix})
        if (!keeps_to_counted_space(kernel)) {
            std::printf("wrong: a radius, kernel %d\n", static_cast<int>(kernel));
            return 1;
        }
    const Problem problems[] = {
        {8, 5000, 70, 10, 0.5, 0, 2, false},    {8, 3000, 33, 100, 0.5, 40, 3, true},
        {8, 1000, 300, 1, 0.3, 0, 1, false},    {4, 2500, 40, 50, 0.5, 0, 2, true},
        {2, 1500, 35, 7, 0.5, 0, 1, false},     {1, 1100, 20, 60, 0.5, 0, 2, false},
        {6, 1030, 33, 5, 0.5, 3, 1, false},     {16, 2100, 40, 20, 0.5, 0, 2, true},
        {13, 1500, 33, 1500, 0.5, 0, 2, false}, {32, 2050, 70, 9, 0.5, 0, 2, false},
        {33, 1025, 65, 9, 0.05, 0, 1, true},    {96, 1100, 40, 3, 0.5, 0, 2, false},
        {8, 2500, 9, 40, 0.0, 1, 2, false},     {5, 31, 3, 40, 0.5, 0, 2, false},
        {8, 9000, 3, 10, 0.5, 200, 1100, true}, {2, 4000, 5, 30, 0.5, 0, 70, false},
    };
    for (const Problem &problem : problems)
        for (const Kernel kernel : {Kernel::rows, Kernel::planes, Kernel::matrix}) {
            if (kernel == Kernel::matrix &&
                !has_matrix_kernel({nullptr, problem.n, problem.n_bytes}))
                continue;
            if (!passes(problem, kernel)) {
                std::printf("wrong: %d bytes, %lld codes, k %lld, kernel %d\n", problem.n_bytes,
                            static_cast<long long>(problem.n), static_cast<long long>(problem.k),
                            static_cast<int>(kernel));
                return 1;
            }
        }
    return 0;
}
