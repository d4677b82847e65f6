// Included once by each file of an instruction set: it fills every table.
//
// The file defines SSBHASH_ISA, its namespace and name, and SSBHASH_WORD_BYTES, the width of
// its registers.
#pragma once

#include "core/base/dispatch.hpp"
#include "core/sampling/kernels/table.hpp"
#include "core/search/kernels/table.hpp"
#include "core/training/kernels/table.hpp"

#define SSBHASH_STRING_(x) #x
#define SSBHASH_STRING(x) SSBHASH_STRING_(x)

namespace ssbhash::SSBHASH_ISA {

extern const InstructionSet instruction_set;
const InstructionSet instruction_set = {SSBHASH_STRING(SSBHASH_ISA), search_kernels,
                                        sampling_kernels, training_kernels};

} // namespace ssbhash::SSBHASH_ISA
