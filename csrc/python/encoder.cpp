// Bindings of the encoder, which holds on to the arrays of its parameters and gradients.
#include "core/training/encoder.hpp"
#include "python/bindings.hpp"
#include "python/sparse.hpp"

#include <string>

namespace py = pybind11;
using namespace ssbhash;

namespace {

// An array that can be written in place, of `size` numbers.
float *memory(const py::handle &array, py::ssize_t size) {
    if (!py::isinstance<Floats>(array))
        throw py::type_error("parameters must be contiguous arrays of float32");
    auto floats = py::reinterpret_borrow<Floats>(array);
    if (floats.size() != size)
        throw py::value_error("a parameter has " + std::to_string(floats.size()) +
                              " numbers, not " + std::to_string(size));
    return floats.mutable_data();
}

class PyEncoder {
  public:
    // layers: for each of the two bias, scale, shift, running mean and variance, and the
    // gradients of the first three; heads: weight, bias and their gradients.
    PyEncoder(const Floats &first, const Floats &second, Floats grad_second, const py::list &layers,
              const py::list &heads, float eps)
        : kept_(py::make_tuple(first, second, grad_second, layers, heads)) {
        if (first.ndim() != 2 || layers.size() != 2)
            throw py::value_error("first must have shape [n_features, n_units], of two layers");
        n_features_ = first.shape(0);
        const py::ssize_t n_units = first.shape(1);
        network_.n_units = static_cast<std::size_t>(n_units);
        network_.first = layer(layers[0].cast<py::tuple>(), first.data(), nullptr, eps);
        network_.second = layer(layers[1].cast<py::tuple>(), memory(second, n_units * n_units),
                                memory(grad_second, n_units * n_units), eps);
        for (const py::handle item : heads) {
            const auto head = item.cast<py::tuple>();
            const auto width = static_cast<py::ssize_t>(py::len(head[1]));
            network_.heads.push_back({memory(head[0], n_units * width), memory(head[1], width),
                                      memory(head[2], n_units * width), memory(head[3], width),
                                      static_cast<std::size_t>(width)});
            n_heads_ += width;
        }
    }

    void forward(const Ids &columns, const Floats &values, const Ids &starts, float momentum,
                 Floats heads, std::size_t n_threads) {
        const SparseRows x = sparse_rows(columns, values, starts, n_features_);
        if (x.n_rows < 2)
            throw py::value_error("a batch must have two rows or more");
        check_size(heads, x.n_rows * static_cast<std::size_t>(n_heads_), "heads");
        float *to = heads.mutable_data();
        released([&] { encoder_.forward(network_, x, momentum, to, n_threads); });
    }

    void backward(const Floats &grad_heads, Floats product, std::size_t n_threads) {
        check_size(grad_heads, encoder_.n_items() * static_cast<std::size_t>(n_heads_),
                   "grad_heads");
        check_size(product, encoder_.n_items() * network_.n_units, "product");
        const float *from = grad_heads.data();
        float *to = product.mutable_data();
        released([&] { encoder_.backward(network_, from, to, n_threads); });
    }

  private:
    EncoderLayer layer(const py::tuple &arrays, const float *weight, float *grad_weight,
                       float eps) const {
        const auto n = static_cast<py::ssize_t>(network_.n_units);
        const auto at = [&](std::size_t i) { return memory(arrays[i], n); };
        return {weight, at(0), at(1), at(2), at(3), at(4), grad_weight, at(5), at(6), at(7), eps};
    }

    py::tuple kept_;
    py::ssize_t n_features_ = 0, n_heads_ = 0;
    EncoderNetwork network_{};
    Encoder encoder_;
};

void py_encode(const Ids &columns, const Floats &values, const Ids &starts,
               const Floats &first_weight, const Floats &first_bias, const Floats &weight,
               const Floats &bias, const Floats &scale, const Floats &shift,
               const Floats &head_weight, const Floats &head_bias, Floats out,
               std::size_t n_threads) {
    if (first_weight.ndim() != 2)
        throw py::value_error("first_weight must have shape [n_features, n_units]");
    const SparseRows x = sparse_rows(columns, values, starts, first_weight.shape(0));
    const auto n_units = static_cast<std::size_t>(first_weight.shape(1));
    for (const Floats *array : {&first_bias, &bias, &scale, &shift})
        check_size(*array, n_units, "an array of one number a unit");
    check_size(weight, n_units * n_units, "weight");
    const auto n_outputs = static_cast<std::size_t>(head_bias.size());
    check_size(head_weight, n_units * n_outputs, "head_weight");
    check_size(out, x.n_rows * n_outputs, "out");
    const TrainedEncoder encoder{
        first_weight.data(), first_bias.data(), weight.data(),      bias.data(),      scale.data(),
        shift.data(),        n_units,           head_weight.data(), head_bias.data(), n_outputs};
    float *to = out.mutable_data();
    released([&] { encode(encoder, x, to, n_threads); });
}

} // namespace

void bind_encoder(py::module_ &m) {
    m.def("encode", &py_encode, py::arg("columns"), py::arg("values"), py::arg("starts"),
          py::arg("first_weight"), py::arg("first_bias"), py::arg("weight"), py::arg("bias"),
          py::arg("scale"), py::arg("shift"), py::arg("head_weight"), py::arg("head_bias"),
          py::arg("out").noconvert(), py::arg("n_threads"));
    py::class_<PyEncoder>(m, "Encoder")
        .def(py::init<const Floats &, const Floats &, Floats, const py::list &, const py::list &,
                      float>(),
             py::arg("first").noconvert(), py::arg("second").noconvert(),
             py::arg("grad_second").noconvert(), py::arg("layers"), py::arg("heads"),
             py::arg("eps"))
        .def("forward", &PyEncoder::forward, py::arg("columns"), py::arg("values"),
             py::arg("starts"), py::arg("momentum"), py::arg("heads").noconvert(),
             py::arg("n_threads"))
        .def("backward", &PyEncoder::backward, py::arg("grad_heads"),
             py::arg("product").noconvert(), py::arg("n_threads"));
}
