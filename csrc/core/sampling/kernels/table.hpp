// The sampling kernels of one instruction set.
#pragma once

#include "core/sampling/kernels/logits_to_bits.hpp"
#include "core/sampling/kernels/random_blocks.hpp"

namespace ssbhash::SSBHASH_ISA {

extern const SamplingKernels sampling_kernels;
const SamplingKernels sampling_kernels = {
    sampling::random_blocks,
    {sampling::draw<sampling::Float16>, sampling::draw<sampling::BFloat16>, sampling::draw<float>,
     sampling::draw<double>},
    {sampling::threshold<sampling::Float16, float>, sampling::threshold<sampling::BFloat16, float>,
     sampling::threshold<float, float>, sampling::threshold<double, double>},
    {sampling::relax<sampling::Float16>, sampling::relax<sampling::BFloat16>,
     sampling::relax<float>, sampling::relax<double>},
};

} // namespace ssbhash::SSBHASH_ISA
