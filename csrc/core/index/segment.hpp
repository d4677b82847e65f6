// A part of an index that never changes.
#pragma once

#include "core/base/codes.hpp"
#include "core/base/threads.hpp"
#include "core/index/postings.hpp"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace ssbhash {

// Items and their codes; the arrays belong to the caller. Without `members`, row i is the code of
// item i. With `members`, rows are the distinct codes, in the order of their first items.
struct Segment {
    Codes codes;
    std::size_t n_items = 0;
    const std::int64_t *ids = nullptr; // [n_items], or null: first_id + item
    std::int64_t first_id = 0;
    bool ascending = true;                       // whether ids ascend
    const std::uint8_t *allowed = nullptr;       // bit i % 8 of byte i / 8: item i may be found
    const std::uint32_t *first_member = nullptr; // [codes.n + 1] into `members`, or null
    const std::uint32_t *members = nullptr;      // [n_items] items by (row, item)
    const Parts *parts = nullptr;                // null: no tables
    std::vector<Table> tables;

    std::int64_t id(std::size_t item) const {
        return ids ? ids[item] : first_id + static_cast<std::int64_t>(item);
    }
    bool is_allowed(std::size_t item) const {
        return !allowed || (allowed[item / 8] >> item % 8 & 1);
    }
    std::size_t row(std::size_t table, std::size_t place) const {
        return row_at(tables[table].rows, place, row_bytes(codes.n));
    }
};

// Thrown by a search that meets an index outside its array: the file was damaged.
struct Damaged : std::runtime_error {
    Damaged() : std::runtime_error("a segment of the index is damaged: it points outside itself") {}
};

// Items grouped by code. Row i of `codes` is the i-th distinct code by first appearance.
struct Distinct {
    std::vector<std::uint8_t> codes; // [n_rows][n_bytes]
    std::vector<std::uint32_t> first_member, members;
};

// Groups equal codes, of which there are fewer than 2^32. `codes` is empty if more than `most` are
// distinct.
Distinct group_equal(const Codes &codes, std::size_t most, const Check &check);

} // namespace ssbhash
