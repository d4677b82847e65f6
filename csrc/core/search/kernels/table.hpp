// The search kernels of one instruction set.
#pragma once

#include "core/search/kernels/block_scan.hpp"
#include "core/search/kernels/probe.hpp"
#include "core/search/kernels/row_scan.hpp"
#include "core/search/kernels/transpose.hpp"

namespace ssbhash::SSBHASH_ISA {

extern const SearchKernels search_kernels;
const SearchKernels search_kernels = {
    searching::kBlockCodes, SSBHASH_WORD_BYTES,   searching::row_distances, searching::scan_rows,
    searching::transpose,   searching::set_query, searching::set_limit,     searching::scan_block,
    searching::read_all,    searching::run_logic,
};

} // namespace ssbhash::SSBHASH_ISA
