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
#ifdef SSBHASH_HAVE_AVX512
namespace avx512 {
extern const Kernels kernels;
}
#endif
#ifdef SSBHASH_HAVE_NEON
namespace neon {
extern const Kernels kernels;
}
#endif

namespace {

// Asks for exactly the features that each file under isa/ is compiled with.
std::vector<const Kernels *> detect() {
    std::vector<const Kernels *> found;
#ifdef SSBHASH_HAVE_AVX2
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
#ifdef SSBHASH_HAVE_AVX512
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::kernels);
#endif
    if (avx2)
        found.push_back(&avx2::kernels);
#endif
#ifdef SSBHASH_HAVE_NEON
    found.push_back(&neon::kernels);
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
