// Bindings of the latent layer's losses.
#include "core/training/code_losses.hpp"
#include "python/bindings.hpp"
#include "python/sparse.hpp"

namespace py = pybind11;
using namespace ssbhash;

namespace {

py::tuple py_step(LatentLoss &self, const Floats &heads, const Floats &code,
                  const Floats &grad_code, const Floats &labels, bool predicted, float tau,
                  float log_floor, const py::tuple &factors, Floats grad_heads) {
    if (code.ndim() != 2 || labels.ndim() != 2 || code.shape(0) != labels.shape(0) ||
        code.size() == 0)
        throw py::value_error("code and labels must have shapes [n, n_bits] and [n, n_classes]");
    if (factors.size() != 4)
        throw py::value_error("factors must be those of kl, point, pair and code");
    check_size(heads, static_cast<std::size_t>(code.size() + labels.size()), "heads");
    check_size(grad_heads, static_cast<std::size_t>(heads.size()), "grad_heads");
    check_size(grad_code, static_cast<std::size_t>(code.size()), "grad_code");
    const LatentTerms given{factors[0].cast<double>(), factors[1].cast<double>(),
                            factors[2].cast<double>(), factors[3].cast<double>()};
    const LatentBatch batch{heads.data(),
                            code.data(),
                            grad_code.data(),
                            labels.data(),
                            static_cast<std::size_t>(code.shape(0)),
                            static_cast<std::size_t>(code.shape(1)),
                            static_cast<std::size_t>(labels.shape(1)),
                            predicted,
                            tau,
                            log_floor};
    const LatentTerms terms = self.step(batch, given, grad_heads.mutable_data());
    return py::make_tuple(terms.kl, terms.point, terms.pair);
}

} // namespace

void bind_code_losses(py::module_ &m) {
    py::class_<LatentLoss>(m, "LatentLoss")
        .def(py::init<>())
        .def("step", &py_step, py::arg("heads"), py::arg("code"), py::arg("grad_code"),
             py::arg("labels"), py::arg("predicted"), py::arg("tau"), py::arg("log_floor"),
             py::arg("factors"), py::arg("grad_heads").noconvert());
}
