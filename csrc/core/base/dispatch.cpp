#include "core/base/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace ssbhash {

namespace baseline {
extern const InstructionSet instruction_set;
}
#ifdef SSBHASH_HAVE_AVX2
namespace avx2 {
extern const InstructionSet instruction_set;
}
#endif
#ifdef SSBHASH_HAVE_AVX512
namespace avx512 {
extern const InstructionSet instruction_set;
}
#endif
#ifdef SSBHASH_HAVE_NEON
namespace neon {
extern const InstructionSet instruction_set;
}
#endif

namespace {

// Asks for exactly the features that each file under isa/ is compiled with.
std::vector<const InstructionSet *> detect() {
    std::vector<const InstructionSet *> found;
#ifdef SSBHASH_HAVE_AVX2
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
                      __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#ifdef SSBHASH_HAVE_AVX512
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::instruction_set);
#endif
    if (avx2)
        found.push_back(&avx2::instruction_set);
#endif
#ifdef SSBHASH_HAVE_NEON
    found.push_back(&neon::instruction_set);
#endif
    found.push_back(&baseline::instruction_set);
    return found;
}

const InstructionSet &find(const std::string &name, const std::string &asked_by) {
    std::string names;
    for (const InstructionSet *isa : available_isas()) {
        if (isa->name == name)
            return *isa;
        names += std::string(names.empty() ? "" : ", ") + isa->name;
    }
    throw std::invalid_argument(asked_by + " must be one of " + names + " here, got " + name);
}

const InstructionSet &choose() {
    const char *forced = std::getenv("SSBHASH_ISA");
    if (forced == nullptr || *forced == '\0')
        return *available_isas().front();
    return find(forced, "SSBHASH_ISA");
}

std::atomic<const InstructionSet *> active{nullptr};

} // namespace

const std::vector<const InstructionSet *> &available_isas() {
    static const std::vector<const InstructionSet *> found = detect();
    return found;
}

const InstructionSet &active_isa() {
    const InstructionSet *isa = active;
    if (isa == nullptr)
        active = isa = &choose();
    return *isa;
}

void set_active_isa(const std::string &name) { active = &find(name, "isa"); }

} // namespace ssbhash
