// Many blocks of random bits at once.
#pragma once

#include "core/sampling/kernels/vectors.hpp"
#include "core/sampling/philox.hpp"

namespace ssbhash::SSBHASH_ISA::sampling {
namespace {

struct RoundKeys {
    Longs key[kPhiloxRounds][2];

    explicit RoundKeys(std::uint64_t seed) {
        auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
        for (auto &[first, second] : key) {
            first = all<Longs>(std::uint64_t{k0});
            second = all<Longs>(std::uint64_t{k1});
            k0 += kPhiloxWeyl[0];
            k1 += kPhiloxWeyl[1];
        }
    }
};

// Four blocks, with one 32-bit word in the low half of each lane. The high halves are never
// read. So products need no mask, and their two words need not be split.
struct FourBlocks {
    Longs word[4];

    void round(const Longs (&key)[2]) {
        const Longs p0 = multiply_low(word[0], kPhiloxMultiplier[0]);
        const Longs p1 = multiply_low(word[2], kPhiloxMultiplier[1]);
        word[0] = (word[1] ^ key[0]) ^ (p1 >> 32);
        word[1] = p1;
        word[2] = (word[3] ^ key[1]) ^ (p0 >> 32);
        word[3] = p0;
    }

    // Lanes hold blocks 0, 2, 1, 3; the shuffles below write them as 0, 1, 2, 3.
    void write(std::uint8_t *out) const {
        const Words even0 = bits_of<Words>(word[0]), odd0 = bits_of<Words>(word[1] << 32);
        const Words even1 = bits_of<Words>(word[2]), odd1 = bits_of<Words>(word[3] << 32);
        const Longs a =
            bits_of<Longs>(Words(__builtin_shufflevector(even0, odd0, 0, 9, 2, 11, 4, 13, 6, 15)));
        const Longs b =
            bits_of<Longs>(Words(__builtin_shufflevector(even1, odd1, 0, 9, 2, 11, 4, 13, 6, 15)));
        store(out, Longs(__builtin_shufflevector(a, b, 0, 4, 2, 6)));
        store(out + 32, Longs(__builtin_shufflevector(a, b, 1, 5, 3, 7)));
    }
};

// ---- any range

void blocks_in_order(const BlockRange &range, const RoundKeys &keys, std::size_t n,
                     std::uint8_t *out) {
    static_assert(kBlocksAtOnce == 8);
    Longs rows[2], indices[2];
    std::uint64_t row = range.row, index = range.index;
    for (int i = 0; i < 8; ++i) {
        constexpr int kLane[4] = {0, 2, 1, 3};
        rows[i / 4][kLane[i % 4]] = row;
        indices[i / 4][kLane[i % 4]] = index;
        if (++index == range.per_row) {
            index = 0;
            ++row;
        }
    }
    const auto row_step = all<Longs>(std::uint64_t{8 / range.per_row});
    const auto index_step = all<Longs>(std::uint64_t{8 % range.per_row});
    const auto per_row = all<Longs>(std::uint64_t{range.per_row});
    const auto last = bits_of<LongInts>(all<Longs>(std::uint64_t{range.per_row - 1}));
    const auto stream = all<Longs>(std::uint64_t{range.stream});
    const auto sample = all<Longs>(std::uint64_t{range.sample});
    for (std::size_t done = 0; done < n; done += 8) {
        FourBlocks blocks[2];
        for (int i = 0; i < 2; ++i) {
            blocks[i] = {{rows[i], rows[i] >> 32, indices[i] | stream, sample}};
            indices[i] += index_step;
            const auto over = bits_of<Longs>(LongInts(bits_of<LongInts>(indices[i]) > last));
            indices[i] -= per_row & over;
            rows[i] += row_step - over;
        }
        for (const auto &key : keys.key) {
            blocks[0].round(key);
            blocks[1].round(key);
        }
        blocks[0].write(out + 16 * done);
        blocks[1].write(out + 16 * done + 64);
    }
}

// ---- whole rows
//
// In the first two rounds the row (counter words 0, 1 and 3) and the index within the row
// (word 2) do not mix:
//
//     words after two rounds  =  part of the row  ^  part of the index
//
// The row's part takes a few scalar operations a row. The index's part is the same for all rows,
// and lies in a table. That leaves 8 of the 10 rounds.

constexpr std::size_t kMaxTableBlocks = 64; // blocks of a row; with more there is less to gain

// The index's part of words 0, 2 and 3, for four consecutive blocks.
struct IndexPart {
    Longs word0, word2, word3;
};

// The row's part of words 0, 1 and 2.
struct RowPart {
    std::uint64_t word0, word1, word2;
};

inline IndexPart index_part(const BlockRange &range, const RoundKeys &keys, std::uint32_t first) {
    const Longs indices = Longs{0, 2, 1, 3} + std::uint64_t{first};
    const Longs p1 = multiply_low(indices | std::uint64_t{range.stream}, kPhiloxMultiplier[1]);
    const Longs q0 =
        multiply_low((keys.key[0][0] ^ (range.row >> 32)) ^ (p1 >> 32), kPhiloxMultiplier[0]);
    return {p1 ^ keys.key[1][0], (q0 >> 32) ^ keys.key[1][1], q0};
}

inline RowPart row_part(const BlockRange &range, const RoundKeys &keys, std::uint64_t row) {
    const std::uint64_t p0 = (row & 0xFFFFFFFFu) * kPhiloxMultiplier[0];
    const std::uint64_t word2 = (keys.key[0][1][0] ^ range.sample ^ (p0 >> 32)) & 0xFFFFFFFFu;
    const std::uint64_t q1 = word2 * kPhiloxMultiplier[1];
    return {q1 >> 32, q1, p0};
}

// Writes four blocks at a time: up to 3 blocks beyond each row, and so beyond the last row.
void blocks_of_rows(const BlockRange &range, const RoundKeys &keys, std::size_t n_rows,
                    std::uint8_t *out) {
    const std::size_t per_row = range.per_row, n_parts = (per_row + 3) / 4;
    IndexPart parts[kMaxTableBlocks / 4];
    for (std::size_t i = 0; i < n_parts; ++i)
        parts[i] = index_part(range, keys, static_cast<std::uint32_t>(4 * i));
    std::size_t row = 0, part = 0;
    RowPart of_row = row_part(range, keys, range.row);
    const auto start = [&](FourBlocks &blocks) { // returns where to write them
        const IndexPart &of_index = parts[part];
        blocks = {{of_index.word0 ^ of_row.word0, all<Longs>(of_row.word1),
                   of_index.word2 ^ of_row.word2, of_index.word3}};
        std::uint8_t *to = out + 16 * (row * per_row + 4 * part);
        if (++part == n_parts) {
            part = 0;
            of_row = row_part(range, keys, range.row + ++row);
        }
        return to;
    };
    const auto finish = [&](auto &blocks) { // two at once hide each other's latency
        for (int round = 2; round < kPhiloxRounds; ++round)
            for (FourBlocks &four : blocks)
                four.round(keys.key[round]);
    };
    for (std::size_t left = n_rows * n_parts; left >= 2; left -= 2) {
        FourBlocks two[2];
        std::uint8_t *const first = start(two[0]), *const second = start(two[1]);
        finish(two);
        two[0].write(first);
        two[1].write(second);
    }
    if (row < n_rows) {
        FourBlocks one[1];
        std::uint8_t *const to = start(one[0]);
        finish(one);
        one[0].write(to);
    }
}

void random_blocks(const BlockRange &range, std::size_t n, std::uint8_t *out) {
    const RoundKeys keys(range.seed);
    const std::size_t n_rows = n / range.per_row;
    const bool one_high_word = range.row >> 32 == (range.row + n_rows) >> 32;
    if (range.index == 0 && n % range.per_row == 0 && range.per_row >= 4 &&
        range.per_row <= kMaxTableBlocks && one_high_word)
        blocks_of_rows(range, keys, n_rows, out);
    else
        blocks_in_order(range, keys, n, out);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::sampling
