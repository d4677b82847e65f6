#include "core/search/database.hpp"

#include <algorithm>
#include <cstring>

namespace ssbhash {

Planes::Planes(const Codes &codes, const InstructionSet &isa, const Schedule &schedule)
    : isa_(isa), n_(codes.n), n_bytes_(codes.n_bytes),
      balls_(Balls::group(codes, isa.search, schedule)),
      block_bytes_(codes.n_bytes * 8 * isa.search.word_bytes) {
    constexpr std::size_t run = 256; // blocks in a task
    const SearchKernels &kernels = isa.search;
    const std::size_t n_blocks = codes.n / kernels.block_codes;
    data_.resize(n_blocks * block_bytes_);
    const auto transpose = [&](std::size_t task, const Check &) {
        Scratch copy(balls_ ? kernels.block_codes * codes.n_bytes : 0);
        for (std::size_t i = task * run; i < std::min((task + 1) * run, n_blocks); ++i) {
            const std::size_t first = i * kernels.block_codes;
            if (balls_)
                gather(codes, balls_->order() + first, kernels.block_codes, copy.data());
            kernels.transpose(balls_ ? copy.data() : codes.row(first), codes.n_bytes,
                              data_.data() + i * block_bytes_);
        }
    };
    parallel_for((n_blocks + run - 1) / run, schedule.n_threads, transpose, schedule.poll);
}

namespace {

// From this share of allowed rows on, looking up the hits is faster than gathering rows
// (README.md): for codes in order of id, and for codes in balls of which a query skips some or
// most.
constexpr double kMinAllowedInOrder = 0.8, kMinAllowedInBalls = 0.7, kMinAllowedIfMostSkipped = 0.3;
constexpr double kMostSkipped = 0.88;
// A few queries hardly pay for gathering: 10 million codes, half of them allowed, one query took
// 45 ms gathered and 19 by hit; with a tenth allowed 16 and 18.
constexpr double kMinAllowedForFew = 0.3;
constexpr std::size_t kFew = 6;

double least_allowed_by_hit(const Database &database, std::size_t n_queries) {
    if (database.allowed && n_queries <= kFew)
        return kMinAllowedForFew;
    const Balls *balls = database.planes ? database.planes->balls() : nullptr;
    if (!balls)
        return kMinAllowedInOrder;
    return balls->share_skipped() < kMostSkipped ? kMinAllowedInBalls : kMinAllowedIfMostSkipped;
}

} // namespace

std::size_t count_allowed(const std::uint8_t *allowed, std::size_t n) {
    const std::size_t n_bytes = (n + 7) / 8;
    std::size_t count = 0;
    for (std::size_t i = 0; i < n_bytes; i += 8) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, allowed + i, std::min<std::size_t>(8, n_bytes - i));
        bits -= (bits >> 1) & 0x5555555555555555u; // one popcount instruction is not the baseline's
        bits = (bits & 0x3333333333333333u) + ((bits >> 2) & 0x3333333333333333u);
        count += ((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
    }
    return count;
}

void choose_filter(Database &database, std::size_t n_queries, FilterMemory &memory) {
    if (!database.ids && !database.allowed)
        return;
    const std::size_t n = database.codes.n;
    const std::size_t n_allowed =
        database.ids ? database.n_ids : count_allowed(database.allowed, n);
    const bool by_hit = static_cast<double>(n_allowed) >=
                        least_allowed_by_hit(database, n_queries) * static_cast<double>(n);
    if (by_hit && database.ids) {
        memory.allowed.assign((n + 7) / 8, 0);
        for (std::size_t i = 0; i < database.n_ids; ++i)
            memory.allowed[database.id(i) / 8] |=
                static_cast<std::uint8_t>(1u << database.id(i) % 8);
        database.allowed = memory.allowed.data();
        database.ids = nullptr;
        database.n_ids = 0;
    } else if (!by_hit && database.allowed) {
        memory.ids.reserve(n_allowed + 1); // not null, even if nothing is allowed
        for (std::size_t i = 0; i < n; i += 64) {
            std::uint64_t bits = 0;
            std::memcpy(&bits, database.allowed + i / 8, std::min<std::size_t>(8, (n - i + 7) / 8));
            for (; bits != 0; bits &= bits - 1)
                memory.ids.push_back(static_cast<std::int64_t>(i) + __builtin_ctzll(bits));
        }
        database.ids = memory.ids.data();
        database.n_ids = memory.ids.size();
        database.allowed = nullptr;
    }
}

BlockReader::BlockReader(const Database &database, const SearchKernels &kernels)
    : database_(database), kernels_(kernels) {}

Block BlockReader::rows(std::size_t first, std::size_t n) {
    Block block = rows_of(first, n);
    block.allowed = database_.allowed;
    return block;
}

Block BlockReader::rows_of(std::size_t first, std::size_t n) {
    if (const Balls *balls = database_.balls())
        return {database_.codes.data, n, nullptr, 0, nullptr, balls->order() + first};
    if (!database_.ids)
        return {database_.row(first), n, nullptr, static_cast<std::int64_t>(first), nullptr};
    const std::size_t n_bytes = database_.codes.n_bytes;
    rows_.resize(std::max(rows_.size(), n * n_bytes));
    for (std::size_t i = 0; i < n; ++i)
        std::memcpy(rows_.data() + i * n_bytes, database_.row(first + i), n_bytes);
    return {rows_.data(), n, database_.ids + first, 0, nullptr};
}

Block BlockReader::with_planes(std::size_t first, std::size_t end) {
    Block block = rows(first, std::min(kernels_.block_codes, end - first));
    block.planes = planes_of(block, first);
    return block;
}

void BlockReader::prefetch(std::size_t first, std::size_t end) const {
    const std::size_t n_codes = kernels_.block_codes, n_bytes = n_codes * database_.codes.n_bytes;
    if (database_.ids || end < first + n_codes)
        return;
    const std::uint8_t *from = database_.row(first); // planes have the same size
    if (database_.planes)
        from = static_cast<const std::uint8_t *>(database_.planes->block(first / n_codes));
    for (std::size_t i = 0; i < n_bytes; i += 64)
        __builtin_prefetch(from + i, 0, 2); // to the second-level cache; the first holds the table
}

const void *BlockReader::planes_of(const Block &block, std::size_t first) {
    const std::size_t n_bytes = database_.codes.n_bytes, n_codes = kernels_.block_codes;
    const std::size_t index = first / n_codes;
    if (database_.planes && !database_.ids && block.n == n_codes)
        return database_.planes->block(index);
    planes_.resize(n_bytes * 8 * kernels_.word_bytes);
    const std::uint8_t *rows = block.rows;
    if (block.n < n_codes) { // the last block: zeros after the end, never offered
        const std::size_t used = block.n * n_bytes;
        if (block.order) {
            rows_.resize(n_codes * n_bytes);
            gather(database_.codes, block.order, block.n, rows_.data());
        } else if (rows != rows_.data()) {
            rows_.resize(n_codes * n_bytes);
            std::memcpy(rows_.data(), rows, used);
        }
        rows_.resize(n_codes * n_bytes);
        std::memset(rows_.data() + used, 0, n_codes * n_bytes - used);
        rows = rows_.data();
    }
    kernels_.transpose(rows, n_bytes, planes_.data());
    return planes_.data();
}

} // namespace ssbhash
