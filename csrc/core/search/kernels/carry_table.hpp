// Carry tables: what all queries of a block share. See wiring.hpp.
#pragma once

#include "core/search/kernels/word.hpp"

#include "core/search/kernels/wiring.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

// Builds the table of units [first, first + n), [n * kUnitPicks][8 patterns], from the planes of
// codes of n_bytes. Returns the parity plane for the next unit.
SSBHASH_INLINE Word build_table(const Word *planes, std::size_t n_bytes, std::size_t first,
                                std::size_t n, Word parity, Word *table) {
    for (std::size_t unit = first; unit < first + n; ++unit) {
        const Word *inputs = planes + unit * kUnitPlanes;
        Word padded[kUnitPlanes];
        if (2 * unit + 1 == n_bytes) { // half a unit
            std::memset(padded, 0, sizeof(padded));
            std::memcpy(padded, inputs, sizeof(padded) / 2);
            inputs = padded;
        }
        parity = wire(inputs, parity, [&](std::size_t t, Word a, Word b, Word c) {
            carries(a, b, c, table + 8 * t);
        });
        table += kUnitTable;
    }
    return parity;
}

// Writes the planes that a lowest counter bit can start with: 0, 1, parity, ~parity.
SSBHASH_INLINE void set_ends(const Word *planes, std::size_t n_bytes, Word *ends) {
    Word parities[8] = {}; // eight independent chains; a single one would wait for each xor
    for (std::size_t i = 0; i < 8 * n_bytes; i += 8)
        for (std::size_t j = 0; j < 8; ++j)
            parities[j] ^= planes[i + j];
    const Word parity = parities[0] ^ parities[1] ^ parities[2] ^ parities[3] ^ parities[4] ^
                        parities[5] ^ parities[6] ^ parities[7];
    ends[0] = Word{};
    ends[1] = ~Word{};
    ends[2] = parity;
    ends[3] = ~parity;
}

void set_query(const Tile &tile, std::size_t slot) {
    const std::uint8_t *query = tile.queries[slot];
    std::uint8_t *offsets = tile.offsets + slot * tile.n_units * kUnitPicks;
    std::uint8_t parity = 0;
    for (std::size_t u = 0; u < tile.n_units; ++u) {
        std::uint8_t bits[kUnitPlanes];
        for (std::size_t i = 0; i < kUnitPlanes; ++i) {
            const std::size_t byte = 2 * u + i / 8;
            bits[i] = byte < tile.n_bytes ? query[byte] >> (i % 8) & 1 : 0;
        }
        parity =
            wire(bits, parity, [&](std::size_t t, std::uint8_t a, std::uint8_t b, std::uint8_t c) {
                offsets[u * kUnitPicks + t] =
                    static_cast<std::uint8_t>((a | b << 1 | c << 2) * kOffsetStep);
            });
    }
    tile.parities[slot] = parity;
}

// starts[0] is the byte offset of the plane that the lowest counter bit starts with. starts[i] is
// the value of bit i, which is the same for all codes.
void set_limit(const Tile &tile, std::size_t slot) {
    const std::size_t bits = counter_bits(tile.n_units);
    const auto limit = static_cast<std::size_t>(tile.sinks[slot]->limit);
    const CounterStart start = counter_start(bits, limit, tile.parities[slot]);
    std::uint64_t *starts = tile.starts + slot * (kMaxCounterBits + 1);
    starts[0] = start.end * SSBHASH_WORD_BYTES;
    for (std::size_t i = 1; i < bits; ++i)
        starts[i] = (start.value >> i & 1) ? ~std::uint64_t{0} : 0;
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
