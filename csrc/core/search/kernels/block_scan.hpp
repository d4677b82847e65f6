// The main kernel: many queries against one block, through its carry table.
#pragma once

#include "core/search/kernels/carry_table.hpp"
#include "core/search/kernels/counter.hpp"
#include "core/search/kernels/sink.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

// The state of a scan between segments, in the caller's scratch memory.
template <int kHigh>
struct State {
    Counter<kHigh> *counters; // [n_slots]
    std::uint32_t *slots;     // [n_slots] the slots that are still scanned
    std::size_t n_slots;
};

struct Segment {
    const std::uint8_t *table; // the carry table of this segment
    const Word *ends;          // the planes 0, 1, parity, ~parity (carry_table.hpp)
    std::size_t first_unit;
    std::size_t n_units;
};

template <int kHigh>
SSBHASH_INLINE Counter<kHigh> start(const Tile &tile, std::size_t slot, const Word *ends) {
    const std::uint64_t *starts = tile.starts + slot * (kMaxCounterBits + 1);
    Counter<kHigh> counter;
    counter.low[0] =
        *reinterpret_cast<const Word *>(reinterpret_cast<const std::uint8_t *>(ends) + starts[0]);
    for (int i = 1; i < 4; ++i)
        counter.low[i] = broadcast(starts[i]);
    for (int i = 0; i < kHigh; ++i)
        counter.high[i] = broadcast(starts[4 + i]);
    counter.over = Word{};
    return counter;
}

// Returns the i-th slot to scan. kAll: no slot skips the block, and the tile's list need not be
// read, which would cost up to 9%.
template <bool kAll>
SSBHASH_INLINE std::size_t slot_at(const Tile &tile, std::size_t i) {
    return kAll ? i : tile.chosen[i];
}

// Scans all units of narrow codes. A query stops half-way if no code can qualify any more.
template <int kHigh, bool kAll, int kUnits>
void scan_halves(const Tile &tile, const Segment &segment, State<kHigh> &state) {
    constexpr int half = kUnits / 2;
    const std::uint8_t *second = segment.table + half * kUnitTable * sizeof(Word);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < state.n_slots; ++i) {
        const std::size_t slot = slot_at<kAll>(tile, i);
        const std::uint8_t *offsets = tile.offsets + slot * kUnits * kUnitPicks;
        Counter<kHigh> counter = start<kHigh>(tile, slot, segment.ends);
        add_units<half>(counter, half, segment.table, offsets);
        if (all_ones(counter.over))
            continue;
        add_units<half>(counter, half, second, offsets + half * kUnitPicks);
        if (__builtin_expect(!all_ones(counter.over), 0)) {
            state.slots[kept] = static_cast<std::uint32_t>(slot);
            state.counters[kept++].over = counter.over;
        }
    }
    state.n_slots = kept;
}

// Scans one segment for all slots of the state. Keeps the slots that have a code whose counter has
// not overflowed yet.
template <int kHigh, bool kAll, int kUnits, bool kFirst, bool kLast>
void scan_segment(const Tile &tile, const Segment &segment, State<kHigh> &state) {
    const std::size_t stride = tile.n_units * kUnitPicks;
    const std::uint8_t *offsets = tile.offsets + segment.first_unit * kUnitPicks;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < state.n_slots; ++i) {
        const std::size_t slot = kFirst ? slot_at<kAll>(tile, i) : state.slots[i];
        Counter<kHigh> counter =
            kFirst ? start<kHigh>(tile, slot, segment.ends) : state.counters[i];
        add_units<kUnits>(counter, segment.n_units, segment.table, offsets + slot * stride);
        if (__builtin_expect(!all_ones(counter.over), !kLast)) {
            state.slots[kept] = static_cast<std::uint32_t>(slot);
            if (kLast)
                state.counters[kept].over = counter.over;
            else
                state.counters[kept] = counter;
            ++kept;
        }
    }
    state.n_slots = kept;
}

// The filter of one block. A code is looked up only if its distance qualifies, for most hits are
// ties that lose. A refused code lowers no limit, so other queries hit it too. After kMaxRefused of
// them the plane of all allowed codes is built and anded to the hits.
template <typename Lane>
class AllowedHits {
  public:
    static constexpr std::size_t kLanesOf = sizeof(Word) / sizeof(Lane);
    static constexpr std::size_t kMaxRefused = kBlockCodes / 8;

    explicit AllowedHits(const Block &block) : block_(block) {}

    void keep(Lane *hits) {
        if (n_refused_ < kMaxRefused)
            return;
        if (!has_plane_)
            build();
        for (std::size_t lane = 0; lane < kLanesOf; ++lane)
            hits[lane] &= plane_[lane];
    }

    bool allows(std::size_t position) {
        if (has_plane_ || is_allowed(block_, position))
            return true;
        ++n_refused_;
        return false;
    }

  private:
    void build() {
        const std::uint8_t *allowed = block_.allowed;
        std::size_t position = 0;
        for (std::size_t bit = 0; bit < 8 * sizeof(Lane); ++bit)
            for (std::size_t lane = 0; lane < kLanesOf && position < block_.n; ++lane) {
                const auto id = static_cast<std::size_t>(id_at(block_, position++));
                plane_[lane] |= static_cast<Lane>(allowed[id / 8] >> id % 8 & 1) << bit;
            }
        has_plane_ = true;
    }

    const Block &block_;
    std::size_t n_refused_ = 0;
    bool has_plane_ = false;
    Lane plane_[kLanesOf] = {};
};

// Offers the codes that have not overflowed to the slot's sink, in order of position.
template <typename Lane>
void offer_hits(const Tile &tile, const Block &block, std::size_t slot, const Word &over,
                AllowedHits<Lane> &allowed) {
    constexpr std::size_t lanes = AllowedHits<Lane>::kLanesOf;
    Lane hits[lanes];
    std::memcpy(hits, &over, sizeof(over));
    for (std::size_t lane = 0; lane < lanes; ++lane)
        hits[lane] = static_cast<Lane>(~hits[lane]);
    allowed.keep(hits);
    Lane any = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane)
        any |= hits[lane];
    Sink &sink = *tile.sinks[slot];
    const std::uint8_t *query = tile.queries[slot];
    for (; any; any &= any - 1) {
        const std::size_t bit = static_cast<std::size_t>(__builtin_ctzll(any));
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::size_t position = bit * lanes + lane;
            if (!(hits[lane] >> bit & 1) || position >= block.n)
                continue;
            const std::int32_t found =
                distance(row_at(block, position, tile.n_bytes), query, tile.n_bytes);
            const std::int64_t id = id_at(block, position);
            if (is_wanted(sink, found, id) && allowed.allows(position))
                take(sink, found, id);
        }
    }
}

template <int kHigh, typename Lane>
void offer_lanes(const Tile &tile, const Block &block, const State<kHigh> &state) {
    AllowedHits<Lane> allowed(block);
    for (std::size_t i = 0; i < state.n_slots; ++i) {
        const std::size_t slot = state.slots[i];
        const std::int32_t limit = tile.sinks[slot]->limit;
        offer_hits<Lane>(tile, block, slot, state.counters[i].over, allowed);
        if (tile.sinks[slot]->limit != limit && tile.sinks[slot]->limit > 0)
            set_limit(tile, slot);
    }
}

template <int kHigh>
void offer_all(const Tile &tile, const Block &block, const State<kHigh> &state) {
    if (tile.n_bytes <= 4)
        offer_lanes<kHigh, std::uint32_t>(tile, block, state);
    else
        offer_lanes<kHigh, std::uint64_t>(tile, block, state);
}

// Scans narrow codes by an unrolled kernel, if there is one for their number of units.
template <int kHigh, bool kAll, int kUnits>
bool scan_unrolled(const Tile &tile, const Segment &segment, State<kHigh> &state) {
    if constexpr (counter_bits(kUnits) == 4 + kHigh) {
        if (segment.n_units == kUnits) {
            scan_segment<kHigh, kAll, kUnits, true, true>(tile, segment, state);
            return true;
        }
    }
    return false;
}

template <int kHigh, bool kAll>
void scan_only_segment(const Tile &tile, const Segment &segment, State<kHigh> &state) {
    if (!scan_unrolled<kHigh, kAll, 2>(tile, segment, state) &&
        !scan_unrolled<kHigh, kAll, 3>(tile, segment, state) &&
        !scan_unrolled<kHigh, kAll, 4>(tile, segment, state) &&
        !scan_unrolled<kHigh, kAll, 8>(tile, segment, state))
        scan_segment<kHigh, kAll, 0, true, true>(tile, segment, state);
}

template <int kHigh, bool kAll>
void scan_block_of(const Tile &tile, const Block &block, const std::size_t *segment_units,
                   std::size_t n_segments, void *scratch) {
    State<kHigh> state;
    state.n_slots = tile.n_chosen;
    state.counters = static_cast<Counter<kHigh> *>(scratch);
    Word *ends = reinterpret_cast<Word *>(state.counters + tile.n_slots);
    Word *table = ends + 4;
    state.slots = reinterpret_cast<std::uint32_t *>(table + kMaxSegmentUnits * kUnitTable);

    const Word *planes = static_cast<const Word *>(block.planes);
    set_ends(planes, tile.n_bytes, ends);
    Segment segment{reinterpret_cast<const std::uint8_t *>(table), ends, 0, 0};
    Word parity{};
    if (n_segments == 2 && tile.n_units <= kMaxHalvedUnits) {
        build_table(planes, tile.n_bytes, 0, tile.n_units, parity, table);
        if constexpr (counter_bits(4) == 4 + kHigh)
            scan_halves<kHigh, kAll, 4>(tile, segment, state);
        else if constexpr (counter_bits(8) == 4 + kHigh)
            scan_halves<kHigh, kAll, 8>(tile, segment, state);
        return offer_all(tile, block, state);
    }
    for (std::size_t s = 0; s < n_segments && state.n_slots > 0; ++s) {
        segment.n_units = segment_units[s];
        parity =
            build_table(planes, tile.n_bytes, segment.first_unit, segment.n_units, parity, table);
        const bool last = s + 1 == n_segments;
        if (s == 0 && last)
            scan_only_segment<kHigh, kAll>(tile, segment, state);
        else if (s == 0)
            scan_segment<kHigh, kAll, 0, true, false>(tile, segment, state);
        else if (last)
            scan_segment<kHigh, true, 0, false, true>(tile, segment, state);
        else
            scan_segment<kHigh, true, 0, false, false>(tile, segment, state);
        segment.first_unit += segment.n_units;
    }
    offer_all(tile, block, state);
}

void scan_block(const Tile &tile, const Block &block, const std::size_t *segment_units,
                std::size_t n_segments, void *scratch) {
    using Scan = decltype(&scan_block_of<0, true>);
    static constexpr Scan by_high[][2] = {{scan_block_of<0, false>, scan_block_of<0, true>},
                                          {scan_block_of<1, false>, scan_block_of<1, true>},
                                          {scan_block_of<2, false>, scan_block_of<2, true>},
                                          {scan_block_of<3, false>, scan_block_of<3, true>},
                                          {scan_block_of<4, false>, scan_block_of<4, true>},
                                          {scan_block_of<5, false>, scan_block_of<5, true>},
                                          {scan_block_of<6, false>, scan_block_of<6, true>},
                                          {scan_block_of<7, false>, scan_block_of<7, true>}};
    const bool all = tile.n_chosen == tile.n_slots;
    by_high[counter_bits(tile.n_units) - 4][all](tile, block, segment_units, n_segments, scratch);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
