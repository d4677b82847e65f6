// The wiring of carry tables, which all queries of a block share.
//
// For planes a, b, c and the query's three bits p in {0..7},
//   (a ^ p0) + (b ^ p1) + (c ^ p2) = 2 * carry_p + (a ^ b ^ c ^ parity(p)).
// The 8 planes carry_p do not depend on the query. The query can only invert the sum plane, so this
// is an input of the next triple, with a known query bit. A unit of 16 planes and the last parity
// plane are 17 planes: 8 triples leave one plane, the parity of all so far. Hence
//   distance = 2 * (the sum of one picked plane for each triple) + parity.
//
// Included after a word: word.hpp, or csrc/cuda/word.cuh.
#pragma once

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

constexpr std::size_t kUnitTable = kUnitPicks * 8; // words

// The wiring of a unit. It is the same for planes and for a query's bits: each triple takes the
// three oldest values of a queue and appends their sum.
template <typename Value, typename Triple>
SSBHASH_INLINE Value wire(const Value *inputs, Value parity, Triple &&triple) {
    Value queue[kUnitPlanes + 1 + kUnitPicks];
    queue[0] = parity;
    SSBHASH_UNROLL(16)
    for (std::size_t i = 0; i < kUnitPlanes; ++i)
        queue[1 + i] = inputs[i];
    SSBHASH_UNROLL(8)
    for (std::size_t t = 0; t < kUnitPicks; ++t) {
        const Value *in = queue + 3 * t;
        triple(t, in[0], in[1], in[2]);
        queue[kUnitPlanes + 1 + t] = in[0] ^ in[1] ^ in[2];
    }
    return queue[kUnitPlanes + kUnitPicks];
}

// carry_(7 - p) is the complement of carry_p.
template <typename Value>
SSBHASH_INLINE void carries(Value a, Value b, Value c, Value *out) {
    const Value ab = a ^ b, ac = a ^ c;
    out[0] = a ^ (ab & ac);
    out[1] = a ^ (ab | ac);
    out[2] = a ^ (~ab & ac);
    out[4] = a ^ (ab & ~ac);
    out[7] = ~out[0];
    out[6] = ~out[1];
    out[5] = ~out[2];
    out[3] = ~out[4];
}

// Returns the bits of the counter: 2^bits is at least the greatest sum of picks.
constexpr std::size_t counter_bits(std::size_t n_units) {
    std::size_t bits = 4;
    while ((std::size_t{1} << bits) < n_units * kUnitPicks)
        ++bits;
    return bits;
}

// How a counter starts.
struct CounterStart {
    std::size_t value; // bits 1 and up
    std::size_t end;   // the lowest bit: number of a plane among 0, 1, parity, ~parity
};

// The threshold comes free. The counter starts at 2^bits - ceil(limit / 2), so it overflows exactly
// for distance >= limit. For an odd limit the parity plane is one more summand, which takes the
// place of the start's lowest bit. If that bit is set, the limit is rounded up: then a few more
// codes are offered, and their exact distance decides.
SSBHASH_INLINE CounterStart counter_start(std::size_t bits, std::size_t limit,
                                          std::size_t query_parity) {
    const std::size_t value = (std::size_t{1} << bits) - (limit + 1) / 2;
    const bool by_parity = limit % 2 == 1 && value % 2 == 0;
    return {value, by_parity ? 2 + query_parity : value & 1};
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
