#include "core/index/postings.hpp"

#include "core/base/bits.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

namespace ssbhash {

Parts::Parts(std::size_t n_bytes, std::size_t n_tables, std::size_t most_width)
    : n_bytes_(n_bytes) {
    const std::size_t n_bits = 8 * n_bytes,
                      last_window = n_bytes - std::min<std::size_t>(n_bytes, 8);
    std::size_t bit = 0;
    for (std::size_t table = 0; table < n_tables; ++table) {
        const std::size_t run = (n_bits - bit) / (n_tables - table);
        const std::size_t width = std::min(run, most_width);
        widths_.push_back(width);
        windows_.push_back(std::min(bit / 8, last_window));
        shifts_.push_back(bit - 8 * windows_.back());
        masks_.push_back(static_cast<std::uint32_t>((std::uint64_t{1} << width) - 1));
        bit += run;
    }
}

std::size_t tables_for(std::size_t n, std::size_t n_bits) {
    std::size_t log_n = 1;
    while (log_n < 32 && (std::size_t{1} << log_n) < n)
        ++log_n;
    const std::size_t width = std::clamp<std::size_t>(log_n > 7 ? log_n - 7 : 1, 8, 18);
    return std::clamp<std::size_t>((n_bits + width - 1) / width, 1, kMaxTables);
}

void build_table(const Codes &codes, const Parts &parts, std::size_t table, std::uint32_t *starts,
                 std::uint8_t *rows, std::uint8_t *copies, const Check &check) {
    const std::size_t n_keys = std::size_t{1} << parts.width(table), n_bytes = codes.n_bytes;
    const std::size_t n_row_bytes = row_bytes(codes.n);
    std::fill_n(starts, n_keys + 1, 0u);
    for (std::size_t i = 0; i < codes.n; ++i) {
        if (i % kRowsACheck == 0)
            check();
        ++starts[parts.key(table, codes.row(i)) + 1];
    }
    for (std::size_t key = 0; key < n_keys; ++key)
        starts[key + 1] += starts[key];
    std::vector<std::uint32_t> next(starts, starts + n_keys);
    for (std::size_t i = 0; i < codes.n; ++i) {
        if (i % kRowsACheck == 0)
            check();
        const std::uint8_t *code = codes.row(i);
        const std::size_t at = next[parts.key(table, code)]++;
        for (std::size_t byte = 0; byte < n_row_bytes; ++byte)
            rows[at * n_row_bytes + byte] = static_cast<std::uint8_t>(i >> 8 * byte);
        if (!copies)
            continue;
        if (n_bytes == 8) // a constant size, so that the copy is one move
            std::memcpy(copies + 8 * at, code, 8);
        else
            std::memcpy(copies + n_bytes * at, code, n_bytes);
    }
}

const Masks &masks_of(std::size_t width) {
    static std::array<Masks, kMaxKeyBits + 1> all;
    static std::array<std::once_flag, kMaxKeyBits + 1> made;
    std::call_once(made[width], [width] {
        Masks &own = all[width];
        const std::size_t n = std::size_t{1} << width;
        own.first.assign(width + 2, 0);
        for (std::size_t mask = 0; mask < n; ++mask)
            ++own.first[count_ones(mask) + 1];
        for (std::size_t r = 0; r <= width; ++r)
            own.first[r + 1] += own.first[r];
        own.masks.resize(n);
        std::vector<std::size_t> next(own.first);
        for (std::size_t mask = 0; mask < n; ++mask)
            own.masks[next[count_ones(mask)]++] = static_cast<std::uint32_t>(mask);
    });
    return all[width];
}

} // namespace ssbhash
