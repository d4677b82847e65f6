// Any CPU that the compiler's default flags serve.
#define SSBHASH_ISA baseline
#include "core/isa/training.inc"
