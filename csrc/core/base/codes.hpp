// Packed codes: rows of n_bytes bytes. Bit j of a code is bit j % 8 of byte j // 8.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ssbhash {

struct Codes {
    const std::uint8_t *data;
    std::size_t n;
    std::size_t n_bytes;

    const std::uint8_t *row(std::size_t i) const { return data + i * n_bytes; }
};

struct Neighbour {
    std::int32_t distance;
    std::int64_t id;
};

} // namespace ssbhash
