// Bindings of sampling: shapes and dtypes in, GIL released.
#include "core/sampling/sampling.hpp"
#include "core/sampling/philox.hpp"
#include "python/bindings.hpp"

#include <pybind11/stl.h>

namespace py = pybind11;
using namespace ssbhash;

namespace {

LogitType type_of(const py::dtype &dtype) {
    if (dtype.kind() == 'u' && dtype.itemsize() == 2) // numpy has no bfloat16
        return LogitType::bfloat16;
    if (dtype.kind() == 'f' && dtype.itemsize() == 2)
        return LogitType::float16;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4)
        return LogitType::float32;
    if (dtype.kind() == 'f' && dtype.itemsize() == 8)
        return LogitType::float64;
    throw py::type_error("logits must be float16, float32, float64 or uint16 (bfloat16)");
}

Logits view(const py::array &array) {
    if (array.ndim() != 2 || array.shape(1) == 0 || array.shape(1) >= 1 << 30)
        throw py::value_error("logits must have shape [n, n_bits], 1 <= n_bits < 2**30");
    return {array.data(),
            static_cast<std::size_t>(array.shape(0)),
            static_cast<std::size_t>(array.shape(1)),
            array.strides(0),
            array.strides(1),
            type_of(array.dtype())};
}

py::ssize_t bytes_for(const Logits &logits) {
    return static_cast<py::ssize_t>((logits.n_bits + 7) / 8);
}

py::tuple py_sample(const py::array &array, const Draw &draw, std::size_t n_threads) {
    const Logits logits = view(array);
    py::array_t<std::uint8_t> codes(
        {static_cast<py::ssize_t>(draw.n_samples), array.shape(0), bytes_for(logits)});
    auto *out = codes.mutable_data();
    std::int64_t bad_row = -1;
    released([&] { bad_row = sample(logits, draw, scheduled(n_threads), out); });
    return py::make_tuple(codes, bad_row);
}

py::tuple py_binarize(const py::array &array,
                      const py::array_t<double, py::array::c_style> &for_bits,
                      std::size_t n_threads) {
    const Logits logits = view(array);
    if (static_cast<std::size_t>(for_bits.size()) != logits.n_bits)
        throw py::value_error("thresholds must have one number for each bit");
    const std::vector<double> thresholds(for_bits.data(), for_bits.data() + for_bits.size());
    py::array_t<std::uint8_t> codes({array.shape(0), bytes_for(logits)});
    auto *out = codes.mutable_data();
    std::int64_t bad_row = -1;
    released([&] { bad_row = binarize(logits, thresholds, scheduled(n_threads), out); });
    return py::make_tuple(codes, bad_row);
}

py::tuple py_sample_relaxed(const py::array &array, const Draw &draw, double tau,
                            std::size_t n_threads) {
    const Logits logits = view(array);
    py::array_t<float> relaxed({array.shape(0), array.shape(1)});
    auto *out = relaxed.mutable_data();
    std::int64_t bad_row = -1;
    released([&] { bad_row = sample_relaxed(logits, tau, draw, scheduled(n_threads), out); });
    return py::make_tuple(relaxed, bad_row);
}

} // namespace

void bind_sampling(py::module_ &m) {
    py::class_<Draw>(m, "Draw", "Which random numbers: of a seed, for rows counted from first_row.")
        .def(py::init([](std::uint64_t seed, std::uint64_t first_row, std::size_t n_samples) {
                 return Draw{seed, first_row, n_samples};
             }),
             py::kw_only(), py::arg("seed"), py::arg("first_row") = 0, py::arg("n_samples") = 1);
    m.def("sample", &py_sample, py::arg("logits"), py::arg("draw"), py::kw_only(),
          py::arg("n_threads"));
    m.def("binarize", &py_binarize, py::arg("logits"), py::arg("thresholds"), py::kw_only(),
          py::arg("n_threads"));
    m.def("sample_relaxed", &py_sample_relaxed, py::arg("logits"), py::arg("draw"), py::kw_only(),
          py::arg("tau"), py::arg("n_threads"));
    m.def("philox", &philox, py::arg("counter"), py::arg("seed"),
          "One block of Philox4x32-10, for the known-answer tests.");
}
