// The search functions that each instruction set fills in, and the plain structures
// that pass between them and the engine.
//
// Files under isa/ include the kernel headers alone: a std:: template
// instantiated there could be the copy that the linker keeps for every machine,
// an illegal instruction on older ones.
#pragma once

#include "core/base/codes.hpp"

namespace ssbhash {

// Planes come in units of 16: with the parity plane of the unit before, 17
// planes are exactly 8 triples and one parity plane (carry_table.hpp).
constexpr std::size_t kUnitPlanes = 16;
constexpr std::size_t kUnitPicks = 8;
constexpr std::size_t kMaxUnits = 256; // 4,096 bits; wider codes are scanned by row
constexpr std::size_t kMaxSegmentUnits = 16;
constexpr std::size_t kMaxHalvedUnits = 8; // narrow codes have a kernel for their halves
constexpr std::size_t kMaxCounterBits = 11;

constexpr std::size_t units_of(std::size_t n_bytes) { return (n_bytes + 1) / 2; }

// Where the codes found for one query go.
struct Sink {
    std::int32_t limit;               // only codes with distance < limit are wanted
    void (*make_room)(Sink &);        // called when n_found == capacity; leaves room for one more
    std::size_t k = 0;                // 0: all of a radius, so the limit stays
    bool by_id = true;                // codes are offered in ascending order of id
    std::int64_t last_id = INT64_MAX; // of distance limit - 1, only smaller ids are wanted
    std::size_t below = 0;            // k > 0: how many found have distance < limit
    std::uint32_t *counts = nullptr;  // k > 0: found so far by distance
    Neighbour *found = nullptr;
    std::size_t n_found = 0;
    std::size_t capacity = 0;
};

// Queries that are scanned together, one slot each.
struct Tile {
    std::size_t n_slots;
    std::size_t n_bytes;
    std::size_t n_units;
    const std::uint8_t **queries; // [n_slots]
    Sink **sinks;                 // [n_slots]
    std::uint8_t *parities;       // [n_slots] parity of the query
    std::uint8_t *offsets;        // [n_slots][n_units * kUnitPicks]
    std::uint64_t *starts;        // [n_slots][kMaxCounterBits + 1]: see set_limit
    std::size_t n_chosen;
    std::uint32_t *chosen; // [n_chosen] the slots to be scanned, ascending
};

// One block of codes, ready to be scanned.
struct Block {
    const std::uint8_t *rows; // [block_codes][n_bytes], or all rows for `order`: exact distances
    std::size_t n;            // of these, the codes that exist
    const std::int64_t *ids;  // [n] ascending, or null: first_id + position
    std::int64_t first_id;
    const void *planes;                    // [8 * n_bytes] words, or null
    const std::uint32_t *order = nullptr;  // [n] or null: position i is row and id order[i]
    const std::uint8_t *allowed = nullptr; // a bit for each id, or null: all are
};

struct SearchKernels {
    std::size_t block_codes; // codes in a block: the bits of a word
    std::size_t word_bytes;

    // Distances of `n` consecutive codes to one query; n_bytes <= 8191.
    void (*row_distances)(const std::uint8_t *codes, std::size_t n, std::size_t n_bytes,
                          const std::uint8_t *query, std::uint16_t *out);

    // Offer the codes of a run of rows to a query's sink, in order.
    void (*scan_rows)(const Block &block, std::size_t n_bytes, const std::uint8_t *query,
                      Sink &sink);

    // Rows of a whole block -> planes [8 * n_bytes] of one word each.
    void (*transpose)(const std::uint8_t *rows, std::size_t n_bytes, void *planes);

    // Fill in what a slot needs: offsets and parity from its query, and from its
    // sink's limit (1 ... 16 * n_units) the start of the counters.
    void (*set_query)(const Tile &tile, std::size_t slot);
    void (*set_limit)(const Tile &tile, std::size_t slot);

    // Offer every code of the block that qualifies to the sinks of the chosen slots.
    // The picks are taken in segments of segment_units[0] ... units, whose carry
    // tables are built one after the other in `scratch`, of scratch_bytes(); slots
    // whose codes have all reached their limit skip the rest. Two segments of at
    // most kMaxHalvedUnits together must be the halves of 4 or 8 units.
    void (*scan_block)(const Tile &tile, const Block &block, const std::size_t *segment_units,
                       std::size_t n_segments, void *scratch);

    // For the benchmark: read memory once; 12 * n logic operations on words.
    std::uint64_t (*read_all)(const std::uint8_t *bytes, std::size_t n_bytes);
    std::uint64_t (*run_logic)(std::size_t n);

    std::size_t scratch_bytes(std::size_t n_slots) const {
        const std::size_t table = (kMaxSegmentUnits * kUnitPicks * 8 + 4) * word_bytes;
        return table + n_slots * (word_bytes * (kMaxCounterBits + 2) + sizeof(std::uint32_t));
    }
};

} // namespace ssbhash
