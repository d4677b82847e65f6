// AArch64: NEON is always there.
#define SSBHASH_ISA neon
#define SSBHASH_WORD_BYTES 16
#include "core/isa/tables.hpp"
