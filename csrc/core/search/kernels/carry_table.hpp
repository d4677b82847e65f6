// Carry tables: what all queries of a block share.
//
// For planes a, b, c and the query's bits p in {0..7} of the three,
//   (a ^ p0) + (b ^ p1) + (c ^ p2) = 2 * carry_p + (a ^ b ^ c ^ parity(p)).
// The 8 planes carry_p do not depend on the query, and the sum plane only up to
// inversion, so it goes on as a plane with a known query bit. A unit of 16
// planes and the last parity plane are 17: 8 triples leave one plane, the parity
// of all so far. Hence
//   distance = 2 * (the sum of one picked plane for each triple) + parity.
#pragma once

#include "core/search/kernels/word.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

// Offsets of picks are bytes: pattern * kOffsetStep, times kOffsetScale.
constexpr std::size_t kOffsetScale = SSBHASH_WORD_BYTES > 32 ? SSBHASH_WORD_BYTES / 32 : 1;
constexpr std::size_t kOffsetStep = SSBHASH_WORD_BYTES / kOffsetScale;
constexpr std::size_t kUnitTable = kUnitPicks * 8; // words

// The wiring of a unit, the same for planes and for a query's bits: each triple
// takes the three oldest values of a queue and appends their sum.
template <typename Value, typename Triple>
SSBHASH_INLINE Value wire(const Value *inputs, Value parity, Triple &&triple) {
    Value queue[kUnitPlanes + 1 + kUnitPicks];
    queue[0] = parity;
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kUnitPlanes; ++i)
        queue[1 + i] = inputs[i];
#pragma GCC unroll 8
    for (std::size_t t = 0; t < kUnitPicks; ++t) {
        const Value *in = queue + 3 * t;
        triple(t, in[0], in[1], in[2]);
        queue[kUnitPlanes + 1 + t] = in[0] ^ in[1] ^ in[2];
    }
    return queue[kUnitPlanes + kUnitPicks];
}

// carry_(7 - p) is the complement of carry_p.
SSBHASH_INLINE void carries(Word a, Word b, Word c, Word *out) {
    const Word ab = a ^ b, ac = a ^ c;
    out[0] = a ^ (ab & ac);
    out[1] = a ^ (ab | ac);
    out[2] = a ^ (~ab & ac);
    out[4] = a ^ (ab & ~ac);
    out[7] = ~out[0];
    out[6] = ~out[1];
    out[5] = ~out[2];
    out[3] = ~out[4];
}

// The table of units [first, first + n), [n * kUnitPicks][8 patterns], from the
// planes of codes of n_bytes; returns the parity plane that the next unit takes.
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

// The planes that a lowest counter can start with: 0, 1, parity, ~parity.
SSBHASH_INLINE void set_ends(const Word *planes, std::size_t n_bytes, Word *ends) {
    Word parities[8] = {}; // eight chains, for one would wait for each xor
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

// Bits of the sum's counter: 2^bits >= the greatest sum of picks.
constexpr std::size_t counter_bits(std::size_t n_units) {
    std::size_t bits = 4;
    while ((std::size_t{1} << bits) < n_units * kUnitPicks)
        ++bits;
    return bits;
}

// The threshold comes free: the counter starts at 2^bits - ceil(limit / 2), so
// it overflows exactly where distance >= limit. For an odd limit the parity
// plane is one more summand; it takes the place of the start's lowest bit, and
// where that is taken the limit is rounded up: a few codes more to look at, the
// exact distance decides. starts[0] is the byte offset of the plane that the
// lowest counter starts with, starts[i] the value of bit i for all codes.
void set_limit(const Tile &tile, std::size_t slot) {
    const std::size_t bits = counter_bits(tile.n_units);
    const std::size_t limit = static_cast<std::size_t>(tile.sinks[slot]->limit);
    const std::size_t start = (std::size_t{1} << bits) - (limit + 1) / 2;
    const bool by_parity = limit % 2 == 1 && start % 2 == 0;
    std::uint64_t *starts = tile.starts + slot * (kMaxCounterBits + 1);
    starts[0] = (by_parity ? std::size_t{2} + tile.parities[slot] : start & 1) * SSBHASH_WORD_BYTES;
    for (std::size_t i = 1; i < bits; ++i)
        starts[i] = (start >> i & 1) ? ~std::uint64_t{0} : 0;
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
