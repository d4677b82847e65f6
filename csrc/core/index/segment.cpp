#include "core/index/segment.hpp"

#include <cstring>
#include <limits>

namespace ssbhash {
namespace {

std::uint64_t hash(const std::uint8_t *code, std::size_t n_bytes) {
    std::uint64_t state = 0;
    for (std::size_t i = 0; i < n_bytes; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, code + i, n_bytes - i < 8 ? n_bytes - i : 8);
        state = (state ^ word) * 0x9E3779B97F4A7C15u; // Fibonacci hashing
        state ^= state >> 32;
    }
    return state * 0x9E3779B97F4A7C15u;
}

} // namespace

// Open addressing; the table holds row + 1.
Distinct group_equal(const Codes &codes, std::size_t most, const Check &check) {
    Distinct found;
    std::size_t log_size = 4;
    while ((std::size_t{1} << log_size) < 2 * most)
        ++log_size;
    const std::size_t mask = (std::size_t{1} << log_size) - 1, n_bytes = codes.n_bytes;
    std::vector<std::uint32_t> slots(mask + 1, 0), row_of(codes.n);
    std::vector<std::uint32_t> &counts = found.first_member;
    counts.push_back(0);
    for (std::size_t i = 0; i < codes.n; ++i) {
        if (i % kRowsACheck == 0)
            check();
        const std::uint8_t *code = codes.row(i);
        std::size_t at = hash(code, n_bytes) >> (64 - log_size);
        while (slots[at] != 0 &&
               std::memcmp(found.codes.data() + (slots[at] - 1) * n_bytes, code, n_bytes) != 0)
            at = (at + 1) & mask;
        if (slots[at] == 0) {
            if (counts.size() > most)
                return {};
            slots[at] = static_cast<std::uint32_t>(counts.size());
            found.codes.insert(found.codes.end(), code, code + n_bytes);
            counts.push_back(0);
        }
        row_of[i] = slots[at] - 1;
        ++counts[row_of[i] + 1];
    }
    for (std::size_t row = 0; row + 1 < counts.size(); ++row)
        counts[row + 1] += counts[row];
    found.members.resize(codes.n);
    std::vector<std::uint32_t> next(counts);
    for (std::size_t i = 0; i < codes.n; ++i)
        found.members[next[row_of[i]]++] = static_cast<std::uint32_t>(i);
    return found;
}

} // namespace ssbhash
