#include "python/bindings.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() = "ssbhash's native engine.";
    bind_search(m);
    bind_index(m);
    bind_sampling(m);
    bind_training(m);
}
