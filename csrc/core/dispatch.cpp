#include "core/dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace ssbhash {

namespace baseline {
extern const Kernels kernels;
}
#ifdef SSBHASH_HAVE_AVX2
namespace avx2 {
extern const Kernels kernels;
}
#endif

namespace {

std::vector<const Kernels *> detect() {
    std::vector<const Kernels *> found;
#ifdef SSBHASH_HAVE_AVX2
    // Exactly the features that isa/avx2.cpp is compiled with.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        found.push_back(&avx2::kernels);
#endif
    found.push_back(&baseline::kernels);
    return found;
}

const Kernels &choose() {
    const char *forced = std::getenv("SSBHASH_ISA");
    if (forced == nullptr || *forced == '\0')
        return *available_kernels().front();
    std::string names;
    for (const Kernels *kernels : available_kernels()) {
        if (kernels->name == std::string(forced))
            return *kernels;
        names += std::string(names.empty() ? "" : ", ") + kernels->name;
    }
    throw std::invalid_argument("SSBHASH_ISA must be one of " + names + " here, got " + forced);
}

} // namespace

const std::vector<const Kernels *> &available_kernels() {
    static const std::vector<const Kernels *> found = detect();
    return found;
}

const Kernels &active_kernels() {
    static const Kernels &chosen = choose();
    return chosen;
}

} // namespace ssbhash
