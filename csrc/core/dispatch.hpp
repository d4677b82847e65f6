// Which instruction set runs: the best that the CPU has, or SSBHASH_ISA.
#pragma once

#include "core/kernels.hpp"

#include <vector>

namespace ssbhash {

// Kernels that were built in and that this CPU can run, best first.
const std::vector<const Kernels *> &available_kernels();

// The kernels in use, chosen once. Throws std::invalid_argument if SSBHASH_ISA
// names one that is not available.
const Kernels &active_kernels();

} // namespace ssbhash
