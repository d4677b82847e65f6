// Chooses the instruction set: the best that the CPU has, or SSBHASH_ISA.
#pragma once

#include <string>
#include <vector>

namespace ssbhash {

struct SearchKernels;
struct SamplingKernels;
struct TrainingKernels;

// The tables of functions of one instruction set, filled in by isa/NAME.cpp.
struct InstructionSet {
    const char *name;
    const SearchKernels &search;
    const SamplingKernels &sampling;
    const TrainingKernels &training;
};

// The instruction sets that were built in and that this CPU can run, best first.
const std::vector<const InstructionSet *> &available_isas();

// The instruction set in use: the best, unless SSBHASH_ISA or set_active_isa names another.
// Throws std::invalid_argument if SSBHASH_ISA names one that is not available.
const InstructionSet &active_isa();

// For tests: calls that begin later use this one. Throws std::invalid_argument
// if it is not available.
void set_active_isa(const std::string &name);

} // namespace ssbhash
