// Any CPU of the architecture: the compiler's default flags.
#define SSBHASH_ISA baseline
#define SSBHASH_WORD_BYTES 16
#include "core/isa/tables.hpp"
