#include "core/training/class_and_item.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/training_kernels.hpp"

namespace ssbhash {

void class_and_item(const ClassAndItem &loss, ClassAndItemGradient &gradient) {
    active_isa().training.class_and_item(loss, gradient);
}

} // namespace ssbhash
