// Bit-sliced counters: the sum of one query's picks, for all codes of a word at once.
//
// Included after a word and wiring.hpp. The word defines add() for pairs of planes; Offset, the
// type of a pick's offset; kTableStep, the bytes from one plane of a table to the next; and
// kOffsetScale.
#pragma once

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

// The counters of one query over a block: planes of weights 1, 2, 4, 8, 16 ...
template <int kHigh>
struct Counter {
    Word low[4];
    Word high[kHigh ? kHigh : 1];
    Word over; // codes whose counter has overflowed

    // Adds a plane of weight 16 * 2^from.
    template <int kFrom>
    SSBHASH_INLINE void carry(Word c) {
        SSBHASH_UNROLL(8)
        for (int i = kFrom; i < kHigh; ++i) {
            const Word next = high[i] & c;
            high[i] ^= c;
            c = next;
        }
        over |= c;
    }
};

template <int kPick, typename Offsets>
SSBHASH_INLINE Word pick(const std::uint8_t *table, Offsets off) {
    constexpr std::size_t base = kPick * 8 * kTableStep;
    return *reinterpret_cast<const Word *>(table + base + off[kPick] * kOffsetScale);
}

template <int kPick, typename Offsets>
SSBHASH_INLINE Pair pick_pair(const std::uint8_t *table, Offsets off) {
    return make_pair(pick<kPick>(table, off), pick<kPick + 1>(table, off));
}

// Adds the 8 picks of one unit. Returns half of a pair: a plane of weight 8.
template <int kUnit, int kHigh, typename Offsets>
SSBHASH_INLINE Pair add_picks(Counter<kHigh> &counter, const std::uint8_t *table, Offsets off) {
    constexpr int i = kUnit * static_cast<int>(kUnitPicks);
    const Pair a = add(counter.low[0], pick_pair<i>(table, off), pick_pair<i + 2>(table, off));
    const Pair b = add(counter.low[0], pick_pair<i + 4>(table, off), pick_pair<i + 6>(table, off));
    return add(counter.low[1], a, b);
}

// Adds one, two or four units.
template <int kUnit, int kHigh, typename Offsets>
SSBHASH_INLINE void add_unit(Counter<kHigh> &counter, const std::uint8_t *table, Offsets off) {
    const Word c = add(counter.low[2], add_picks<kUnit>(counter, table, off));
    const Word next = counter.low[3] & c;
    counter.low[3] ^= c;
    counter.template carry<0>(next);
}

template <int kUnit, int kHigh, typename Offsets>
SSBHASH_INLINE Word two_units(Counter<kHigh> &counter, const std::uint8_t *table, Offsets off) {
    const Pair a = add_picks<kUnit>(counter, table, off);
    const Pair b = add_picks<kUnit + 1>(counter, table, off);
    return add(counter.low[3], add(counter.low[2], a, b));
}

template <int kUnit, int kHigh, typename Offsets>
SSBHASH_INLINE void add_four_units(Counter<kHigh> &counter, const std::uint8_t *table,
                                   Offsets off) {
    const Word a = two_units<kUnit>(counter, table, off);
    const Word b = two_units<kUnit + 2>(counter, table, off);
    counter.template carry<1>(add(counter.high[0], make_pair(a, b)));
}

// Adds kUnits units, or n_units if kUnits is 0.
template <int kUnits, int kHigh, typename Offsets>
SSBHASH_INLINE void add_units(Counter<kHigh> &counter, std::size_t n_units,
                              const std::uint8_t *table, Offsets off) {
    std::size_t left = kUnits ? kUnits : n_units;
    if constexpr (kHigh > 0) {
        SSBHASH_UNROLL(2)
        for (; left >= 4; left -= 4) {
            add_four_units<0>(counter, table, off);
            table += 4 * kUnitTable * kTableStep;
            off += 4 * kUnitPicks;
        }
    }
    if (left & 2) {
        counter.template carry<0>(two_units<0>(counter, table, off));
        table += 2 * kUnitTable * kTableStep;
        off += 2 * kUnitPicks;
    }
    if (left & 1)
        add_unit<0>(counter, table, off);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
