// Bindings of training. Results of the same size as an argument are written in place, so nothing
// is converted; all else is a new array.
#include "core/training/adam.hpp"
#include "core/training/class_and_item.hpp"
#include "core/training/layers.hpp"
#include "core/training/softmax_regression.hpp"
#include "python/bindings.hpp"

#include <optional>
#include <pybind11/stl.h>
#include <string>
#include <vector>

namespace py = pybind11;
using namespace ssbhash;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<std::int64_t, py::array::c_style>;

void check_ids(const Ids &ids, py::ssize_t n, const char *name) {
    for (py::ssize_t i = 0; i < ids.size(); ++i)
        if (ids.data()[i] < 0 || ids.data()[i] >= n)
            throw py::index_error(std::string(name) + " must be 0 ... " + std::to_string(n - 1) +
                                  ", got " + std::to_string(ids.data()[i]));
}

void check_size(const Floats &array, py::ssize_t size, const char *name) {
    if (array.size() != size)
        throw py::value_error(std::string(name) + " must have " + std::to_string(size) +
                              " numbers, got " + std::to_string(array.size()));
}

Floats empty_like(const Floats &array) {
    return Floats(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()));
}

std::size_t length(const Floats &array, int axis) {
    return static_cast<std::size_t>(array.shape(axis));
}

struct PySparseRows {
    Ids ids;
    Floats values;
    Ids starts;

    SparseRows view(py::ssize_t n_ids) const {
        check_ids(ids, n_ids, "ids");
        check_size(values, ids.size(), "values");
        std::int64_t last = 0;
        for (py::ssize_t i = 0; i < starts.size(); last = starts.data()[i++])
            if (starts.data()[i] < last || starts.data()[i] > ids.size())
                throw py::index_error("starts must ascend, up to the number of values");
        return {ids.data(), starts.data(), values.data(), static_cast<std::size_t>(starts.size()),
                static_cast<std::size_t>(ids.size())};
    }
};

Floats py_sum_rows(const PySparseRows &sums, const Floats &matrix, std::size_t n_threads) {
    if (matrix.ndim() != 2)
        throw py::value_error("matrix must have shape [n, width]");
    const SparseRows rows = sums.view(matrix.shape(0));
    Floats out({sums.starts.size(), matrix.shape(1)});
    const float *from = matrix.data();
    float *to = out.mutable_data();
    released([&] { sum_rows(rows, from, length(matrix, 1), to, n_threads); });
    return out;
}

struct PyDropout {
    py::array_t<std::uint8_t, py::array::c_style> bytes;
    std::int32_t threshold;
    float scale;

    // Of a matrix of `size` units.
    Dropout view(py::ssize_t size) const {
        if (bytes.size() != size)
            throw py::value_error("dropout must have " + std::to_string(size) + " bytes, got " +
                                  std::to_string(bytes.size()));
        return {bytes.data(), threshold, scale};
    }
};

Dropout view(const std::optional<PyDropout> &dropout, py::ssize_t size) {
    return dropout ? dropout->view(size) : Dropout{};
}

Floats py_dropped(const Floats &x, const PyDropout &dropout, std::size_t n_threads) {
    const Dropout drawn = dropout.view(x.size());
    Floats out = empty_like(x);
    float *to = out.mutable_data();
    released([&] { dropped(x.data(), static_cast<std::size_t>(x.size()), drawn, to, n_threads); });
    return out;
}

struct PyNorm {
    Floats scale, shift, running_mean, running_variance;
    float eps, momentum;
};

struct PyMoments {
    Floats mean, inverse;
};

py::tuple py_relu_norm(const Floats &product, const Floats &bias, PyNorm &norm,
                       const std::optional<PyDropout> &dropout, std::size_t n_threads) {
    if (product.ndim() != 2 || product.shape(0) < 2)
        throw py::value_error("product must have shape [n, width], n >= 2");
    const py::ssize_t width = product.shape(1);
    check_size(bias, width, "bias");
    check_size(norm.scale, width, "scale");
    check_size(norm.shift, width, "shift");
    check_size(norm.running_mean, width, "running_mean");
    check_size(norm.running_variance, width, "running_variance");
    Floats out = empty_like(product);
    PyMoments moments{empty_like(bias), empty_like(bias)};
    const ReluNorm layer{product.data(),
                         bias.data(),
                         norm.scale.data(),
                         norm.shift.data(),
                         length(product, 0),
                         length(product, 1),
                         norm.eps,
                         norm.momentum,
                         out.mutable_data(),
                         moments.mean.mutable_data(),
                         moments.inverse.mutable_data(),
                         norm.running_mean.mutable_data(),
                         norm.running_variance.mutable_data(),
                         view(dropout, product.size())};
    released([&] { relu_norm(layer, n_threads); });
    return py::make_tuple(out, moments);
}

struct PyReluNormGradient {
    Floats product, bias, scale, shift;
};

PyReluNormGradient py_relu_norm_backward(const Floats &grad, const Floats &product,
                                         const Floats &bias, const PyMoments &moments,
                                         const Floats &scale,
                                         const std::optional<PyDropout> &dropout,
                                         std::size_t n_threads) {
    if (grad.ndim() != 2)
        throw py::value_error("grad must have shape [n, width]");
    check_size(product, grad.size(), "product");
    check_size(bias, grad.shape(1), "bias");
    check_size(moments.mean, grad.shape(1), "mean");
    check_size(moments.inverse, grad.shape(1), "inverse");
    check_size(scale, grad.shape(1), "scale");
    PyReluNormGradient to{empty_like(grad), empty_like(scale), empty_like(scale),
                          empty_like(scale)};
    const ReluNormGradient layer{grad.data(),
                                 product.data(),
                                 bias.data(),
                                 moments.mean.data(),
                                 moments.inverse.data(),
                                 scale.data(),
                                 length(grad, 0),
                                 length(grad, 1),
                                 to.product.mutable_data(),
                                 to.bias.mutable_data(),
                                 to.scale.mutable_data(),
                                 to.shift.mutable_data(),
                                 view(dropout, grad.size())};
    released([&] { relu_norm_backward(layer, n_threads); });
    return to;
}

struct PyDecoder {
    Floats weight, bias;
};

struct PySoftmaxLoss {
    double loss;
    Floats code, weight, bias;
};

PySoftmaxLoss py_softmax_regression(const Floats &code, const PyDecoder &decoder,
                                    const PySparseRows &target, float log_floor,
                                    std::size_t n_threads) {
    const Floats &weight = decoder.weight;
    if (code.ndim() != 2 || weight.ndim() != 2 || code.shape(1) != weight.shape(1) ||
        code.size() == 0 || weight.size() == 0)
        throw py::value_error("code and weight must have shapes [n, n_bits] of one n_bits >= 1");
    check_size(decoder.bias, weight.shape(0), "bias");
    if (target.starts.size() != code.shape(0))
        throw py::value_error("starts must have one entry for each row of code");
    const SparseRows rows = target.view(weight.shape(0));
    PySoftmaxLoss found{0, empty_like(code), empty_like(weight), empty_like(decoder.bias)};
    const Decoder from{code.data(),     weight.data(),   decoder.bias.data(),
                       length(code, 0), length(code, 1), length(weight, 0)};
    const DecoderGradient to{found.code.mutable_data(), found.weight.mutable_data(),
                             found.bias.mutable_data()};
    released([&] { found.loss = softmax_regression(from, rows, log_floor, to, n_threads); });
    return found;
}

struct PyClassAndItem {
    double class_, contrast, labelled;
    Floats outputs, slopes;
};

PyClassAndItem py_class_and_item(const Floats &outputs, const Floats &products,
                                 const Floats &target, const Floats &share, bool multilabel,
                                 float scale, float least, float contrast_weight) {
    if (outputs.ndim() != 2 || products.ndim() != 2 || target.ndim() != 2)
        throw py::value_error("outputs, products and target must be matrices");
    const py::ssize_t n = outputs.shape(0), n_pairs = products.shape(0);
    const py::ssize_t width = outputs.shape(1) - target.shape(1);
    if (n_pairs < 1 || 2 * n_pairs > n || width < 0 || target.shape(1) < 1)
        throw py::value_error("outputs must have a row for each item of a pair, and a column for "
                              "each class");
    check_size(products, n_pairs * n_pairs, "products");
    check_size(target, n * target.shape(1), "target");
    check_size(share, n, "share");
    const ClassAndItem loss{outputs.data(),
                            products.data(),
                            target.data(),
                            share.data(),
                            length(outputs, 0),
                            length(products, 0),
                            length(target, 1),
                            static_cast<std::size_t>(width),
                            multilabel,
                            scale,
                            least,
                            contrast_weight};
    PyClassAndItem found{0, 0, 0, empty_like(outputs), empty_like(products)};
    ClassAndItemGradient gradient{0, 0, 0, found.outputs.mutable_data(),
                                  found.slopes.mutable_data()};
    released([&] { class_and_item(loss, gradient); });
    found.class_ = gradient.class_;
    found.contrast = gradient.contrast;
    found.labelled = gradient.labelled;
    return found;
}

class PyAdam {
  public:
    PyAdam(Floats weight, Floats mean, Floats square, float eps, std::optional<Floats> average)
        : weight_(std::move(weight)), mean_(std::move(mean)), square_(std::move(square)),
          average_(std::move(average)) {
        check_size(mean_, weight_.size(), "mean");
        check_size(square_, weight_.size(), "square");
        const std::size_t width = weight_.ndim() == 2 ? length(weight_, 1) : 1;
        adam_ = {weight_.mutable_data(), mean_.mutable_data(), square_.mutable_data(), width, eps};
        if (average_) {
            check_size(*average_, weight_.size(), "average");
            adam_.average = average_->mutable_data();
        }
    }

    void catch_up(const Ids &rows, const Floats &step, const Floats &mean_decay,
                  const Floats &square_decay, std::size_t n_threads) {
        check_rows(rows);
        check_size(step, rows.size(), "step");
        check_size(mean_decay, rows.size(), "mean_decay");
        check_size(square_decay, rows.size(), "square_decay");
        const Missed missed{rows.data(), step.data(), mean_decay.data(), square_decay.data(),
                            static_cast<std::size_t>(rows.size())};
        released([&] { ssbhash::catch_up(adam_, missed, n_threads); });
    }

    void step_rows(const Ids &rows, const Floats &gradient, float step, std::size_t n_threads) {
        check_rows(rows);
        check_size(gradient, rows.size() * static_cast<py::ssize_t>(adam_.width), "gradient");
        const RowGradient of{rows.data(), gradient.data(), static_cast<std::size_t>(rows.size())};
        released([&] { ssbhash::step_rows(adam_, of, step, n_threads); });
    }

    void step(const std::vector<Floats> &gradients, float step, float share,
              std::size_t n_threads) {
        adam_.share = share;
        std::vector<const float *> pointers;
        std::vector<std::size_t> sizes;
        py::ssize_t total = 0;
        for (const Floats &gradient : gradients) {
            pointers.push_back(gradient.data());
            sizes.push_back(static_cast<std::size_t>(gradient.size()));
            total += gradient.size();
        }
        check_size(weight_, total, "weight");
        released([&] { step_all(adam_, pointers, sizes, step, n_threads); });
    }

  private:
    void check_rows(const Ids &rows) const {
        if (weight_.ndim() != 2)
            throw py::value_error("weight must have shape [n_rows, width]");
        check_ids(rows, weight_.shape(0), "rows");
    }

    Floats weight_, mean_, square_;
    std::optional<Floats> average_;
    Adam adam_;
};

} // namespace

void bind_training(py::module_ &m) {
    const auto n_threads = py::arg("n_threads");
    py::class_<PySparseRows>(m, "SparseRows")
        .def(py::init<Ids, Floats, Ids>(), py::arg("ids"), py::arg("values"), py::arg("starts"));
    py::class_<PyDropout>(m, "Dropout")
        .def(py::init<py::array_t<std::uint8_t, py::array::c_style>, std::int32_t, float>(),
             py::arg("bytes"), py::arg("threshold"), py::arg("scale"));
    py::class_<PyNorm>(m, "Norm").def(
        py::init<Floats, Floats, Floats, Floats, float, float>(), py::kw_only(), py::arg("scale"),
        py::arg("shift"), py::arg("running_mean").noconvert(),
        py::arg("running_variance").noconvert(), py::arg("eps"), py::arg("momentum"));
    py::class_<PyMoments>(m, "Moments")
        .def(py::init<Floats, Floats>(), py::arg("mean"), py::arg("inverse"))
        .def_readonly("mean", &PyMoments::mean)
        .def_readonly("inverse", &PyMoments::inverse);
    py::class_<PyReluNormGradient>(m, "ReluNormGradient")
        .def_readonly("product", &PyReluNormGradient::product)
        .def_readonly("bias", &PyReluNormGradient::bias)
        .def_readonly("scale", &PyReluNormGradient::scale)
        .def_readonly("shift", &PyReluNormGradient::shift);
    py::class_<PyDecoder>(m, "Decoder")
        .def(py::init<Floats, Floats>(), py::arg("weight"), py::arg("bias"));
    py::class_<PySoftmaxLoss>(m, "SoftmaxLoss")
        .def_readonly("loss", &PySoftmaxLoss::loss)
        .def_readonly("code", &PySoftmaxLoss::code)
        .def_readonly("weight", &PySoftmaxLoss::weight)
        .def_readonly("bias", &PySoftmaxLoss::bias);
    py::class_<PyClassAndItem>(m, "ClassAndItem")
        .def_readonly("class_", &PyClassAndItem::class_)
        .def_readonly("contrast", &PyClassAndItem::contrast)
        .def_readonly("labelled", &PyClassAndItem::labelled)
        .def_readonly("outputs", &PyClassAndItem::outputs)
        .def_readonly("slopes", &PyClassAndItem::slopes);
    m.def("sum_rows", &py_sum_rows, py::arg("sums"), py::arg("matrix"), n_threads);
    m.def("dropped", &py_dropped, py::arg("x"), py::arg("dropout"), n_threads);
    m.def("relu_norm", &py_relu_norm, py::arg("product"), py::arg("bias"), py::arg("norm"),
          py::arg("dropout"), n_threads);
    m.def("relu_norm_backward", &py_relu_norm_backward, py::arg("grad"), py::arg("product"),
          py::arg("bias"), py::arg("moments"), py::arg("scale"), py::kw_only(), py::arg("dropout"),
          n_threads);
    m.def("softmax_regression", &py_softmax_regression, py::arg("code"), py::arg("decoder"),
          py::arg("target"), py::arg("log_floor"), n_threads);
    m.def("class_and_item", &py_class_and_item, py::arg("outputs"), py::arg("products"),
          py::arg("target"), py::arg("share"), py::kw_only(), py::arg("multilabel"),
          py::arg("scale"), py::arg("least"), py::arg("contrast_weight"));
    py::class_<PyAdam>(m, "Adam")
        .def(py::init<Floats, Floats, Floats, float, std::optional<Floats>>(),
             py::arg("weight").noconvert(), py::arg("mean").noconvert(),
             py::arg("square").noconvert(), py::arg("eps"),
             py::arg("average").noconvert() = py::none())
        .def("catch_up", &PyAdam::catch_up, py::arg("rows"), py::arg("step"), py::arg("mean_decay"),
             py::arg("square_decay"), n_threads)
        .def("step_rows", &PyAdam::step_rows, py::arg("rows"), py::arg("gradient"), py::arg("step"),
             n_threads)
        .def("step", &PyAdam::step, py::arg("gradients"), py::arg("step"), py::arg("share"),
             n_threads);
}
