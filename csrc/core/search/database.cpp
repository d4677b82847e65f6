#include "core/search/database.hpp"

#include "core/base/threads.hpp"

#include <algorithm>
#include <cstring>

namespace ssbhash {

Planes::Planes(const Codes &codes, const SearchKernels &kernels, std::size_t n_threads)
    : balls_(Balls::group(codes, kernels, n_threads)),
      block_bytes_(codes.n_bytes * 8 * kernels.word_bytes),
      n_blocks_(codes.n / kernels.block_codes), data_(n_blocks_ * block_bytes_) {
    constexpr std::size_t run = 256; // blocks in a task
    parallel_for((n_blocks_ + run - 1) / run, n_threads, [&](std::size_t task, const Check &) {
        Scratch copy(balls_ ? kernels.block_codes * codes.n_bytes : 0);
        for (std::size_t i = task * run; i < std::min((task + 1) * run, n_blocks_); ++i) {
            const std::size_t first = i * kernels.block_codes;
            if (balls_)
                gather(codes, balls_->order() + first, kernels.block_codes, copy.data());
            kernels.transpose(balls_ ? copy.data() : codes.row(first), codes.n_bytes,
                              data_.data() + i * block_bytes_);
        }
    });
}

BlockReader::BlockReader(const Database &database, const SearchKernels &kernels)
    : database_(database), kernels_(kernels) {}

Block BlockReader::rows(std::size_t first, std::size_t n) {
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
    const std::uint8_t *from = database_.row(first); // planes are as large
    if (database_.planes)
        from = static_cast<const std::uint8_t *>(database_.planes->block(first / n_codes));
    for (std::size_t i = 0; i < n_bytes; i += 64)
        __builtin_prefetch(from + i, 0, 2); // the second-level cache: the first holds the table
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
