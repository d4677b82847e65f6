// Offering found codes to a sink: the k smallest by counting.
#pragma once

#include "core/isa/word.hpp"

namespace ssbhash::SSBHASH_ISA {
namespace {

// Codes come in ascending order of id, so a code at the k-th distance that comes
// later loses its tie: only distance < limit is taken.
SSBHASH_INLINE void offer(Sink &sink, std::int32_t distance, std::int64_t id) {
    if (distance >= sink.limit)
        return;
    if (sink.n_found == sink.capacity)
        sink.make_room(sink);
    sink.found[sink.n_found++] = {distance, id};
    if (sink.k == 0)
        return;
    ++sink.counts[distance];
    for (++sink.below; sink.below >= sink.k;)
        sink.below -= sink.counts[--sink.limit];
}

SSBHASH_INLINE std::int64_t id_at(const Block &block, std::size_t position) {
    return block.ids ? block.ids[position] : block.first_id + static_cast<std::int64_t>(position);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA
