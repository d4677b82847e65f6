// Offers codes to a sink, which keeps the k smallest by counting.
#pragma once

#include "core/search/kernels/word.hpp"

namespace ssbhash::SSBHASH_ISA::searching {
namespace {

// Lowers the limit to one more than the k-th distance. A code at the k-th distance may win its tie.
inline void lower_limit(Sink &sink) {
    while (sink.below - sink.counts[sink.limit - 1] >= sink.k) {
        sink.below -= sink.counts[--sink.limit];
        sink.last_id = INT64_MAX;
    }
}

// If codes come in ascending order of id, a later code at the k-th distance loses its tie, so the
// limit is the k-th distance. Otherwise it is one more.
SSBHASH_INLINE bool is_wanted(const Sink &sink, std::int32_t distance, std::int64_t id) {
    return distance < sink.limit && (distance + 1 < sink.limit || id < sink.last_id);
}

SSBHASH_INLINE void take(Sink &sink, std::int32_t distance, std::int64_t id) {
    if (sink.n_found == sink.capacity)
        sink.make_room(sink);
    sink.found[sink.n_found++] = {distance, id};
    if (sink.k == 0)
        return;
    ++sink.counts[distance];
    ++sink.below;
    if (!sink.by_id)
        return lower_limit(sink);
    while (sink.below >= sink.k)
        sink.below -= sink.counts[--sink.limit];
}

SSBHASH_INLINE const std::uint8_t *row_at(const Block &block, std::size_t position,
                                          std::size_t n_bytes) {
    return block.rows + (block.order ? block.order[position] : position) * n_bytes;
}

SSBHASH_INLINE std::int64_t id_at(const Block &block, std::size_t position) {
    if (block.order)
        return block.order[position];
    return block.ids ? block.ids[position] : block.first_id + static_cast<std::int64_t>(position);
}

inline bool is_allowed(const Block &block, std::size_t position) {
    if (!block.allowed)
        return true;
    const std::int64_t id = id_at(block, position);
    return block.allowed[id / 8] >> (id % 8) & 1;
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::searching
