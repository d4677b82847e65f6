// Any CPU that the compiler's default flags serve.
#define SSBHASH_ISA baseline
#define SSBHASH_WORD_BYTES 16
#include "core/isa/tables.hpp"
