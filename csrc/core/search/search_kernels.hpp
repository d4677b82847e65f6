// The search functions that each instruction set provides, and the plain structures that they
// exchange with the engine.
//
// Files under isa/ include the kernel headers alone. The linker keeps one copy of each std::
// template: if it came from there, older machines would meet an illegal instruction.
#pragma once

#include "core/base/codes.hpp"

namespace ssbhash {

// Planes come in units of 16. With the parity plane of the unit before they are 17: exactly 8
// triples and one parity plane (wiring.hpp).
constexpr std::size_t kUnitPlanes = 16;
constexpr std::size_t kUnitPicks = 8;
constexpr std::size_t kMaxUnits = 256; // 4,096 bits; wider codes are scanned by row
constexpr std::size_t kMaxSegmentUnits = 16;
constexpr std::size_t kMaxHalvedUnits = 8; // narrow codes have a kernel for their halves
constexpr std::size_t kMaxCounterBits = 11;

constexpr std::size_t units_of(std::size_t n_bytes) { return (n_bytes + 1) / 2; }

// Takes the codes that were found for one query.
struct Sink {
    std::int32_t limit;               // only codes with distance < limit qualify
    void (*make_room)(Sink &);        // called when n_found == capacity; leaves room for one more
    std::size_t k = 0;                // 0: all within a radius, so the limit is fixed
    bool by_id = true;                // whether codes are offered in ascending order of id
    std::int64_t last_id = INT64_MAX; // at distance limit - 1 only smaller ids qualify
    std::size_t below = 0;            // k > 0: number found with distance < limit
    std::uint32_t *counts = nullptr;  // k > 0: number found, by distance
    Neighbour *found = nullptr;
    std::size_t n_found = 0;
    std::size_t capacity = 0;
};

// Queries that are scanned together. Each has a slot.
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
    std::uint32_t *chosen; // [n_chosen] the slots to scan, ascending
};

// One block of codes, ready to be scanned.
struct Block {
    const std::uint8_t *rows; // [block_codes][n_bytes] for exact distances; with `order`, all rows
    std::size_t n;            // number of codes that exist; the last block may have fewer
    const std::int64_t *ids;  // [n] ascending, or null: first_id + position
    std::int64_t first_id;
    const void *planes;                    // [8 * n_bytes] words, or null
    const std::uint32_t *order = nullptr;  // [n] or null: position i is row and id order[i]
    const std::uint8_t *allowed = nullptr; // a bit for each id; null: all are allowed
};

struct SearchKernels {
    std::size_t block_codes; // codes in a block: the bits of a word
    std::size_t word_bytes;

    // Distances of `n` consecutive codes to one query; n_bytes <= 8191.
    void (*row_distances)(const std::uint8_t *codes, std::size_t n, std::size_t n_bytes,
                          const std::uint8_t *query, std::uint16_t *out);

    // Offers the codes of a run of rows to a query's sink, in order.
    void (*scan_rows)(const Block &block, std::size_t n_bytes, const std::uint8_t *query,
                      Sink &sink);

    // Transposes the rows of a whole block into planes [8 * n_bytes] of one word each.
    void (*transpose)(const std::uint8_t *rows, std::size_t n_bytes, void *planes);

    // Fill in a slot: offsets and parity of its query, and the start of its counters by the limit
    // of its sink (1 ... 16 * n_units).
    void (*set_query)(const Tile &tile, std::size_t slot);
    void (*set_limit)(const Tile &tile, std::size_t slot);

    // Offers every code of the block that qualifies to the sinks of the chosen slots. The picks are
    // taken in segments of segment_units[0], segment_units[1] ... units. The carry table of each
    // segment is built in `scratch`, of scratch_bytes(). A slot skips the remaining segments once
    // all codes have reached its limit. Two segments of together at most kMaxHalvedUnits units must
    // be the halves of 4 or 8 units.
    void (*scan_block)(const Tile &tile, const Block &block, const std::size_t *segment_units,
                       std::size_t n_segments, void *scratch);

    // For the benchmark: reads memory once; does 12 * n logic operations on words.
    std::uint64_t (*read_all)(const std::uint8_t *bytes, std::size_t n_bytes);
    std::uint64_t (*run_logic)(std::size_t n);

    std::size_t scratch_bytes(std::size_t n_slots) const {
        const std::size_t table = (kMaxSegmentUnits * kUnitPicks * 8 + 4) * word_bytes;
        return table + n_slots * (word_bytes * (kMaxCounterBits + 2) + sizeof(std::uint32_t));
    }
};

} // namespace ssbhash
