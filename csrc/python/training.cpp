// Bindings of training: arrays are updated in place, so nothing is converted.
#include "core/training/training.hpp"
#include "core/training/decoder.hpp"
#include "python/bindings.hpp"
#include "python/sparse.hpp"

#include <optional>
#include <pybind11/stl.h>
#include <vector>

namespace py = pybind11;
using namespace ssbhash;

namespace {

AdamRows view(Floats &weight, Floats &mean, Floats &square) {
    if (weight.ndim() != 2 || mean.ndim() != 2 || square.ndim() != 2)
        throw py::value_error("weight, mean and square must have shape [n_rows, width]");
    for (int axis = 0; axis < 2; ++axis)
        if (mean.shape(axis) != weight.shape(axis) || square.shape(axis) != weight.shape(axis))
            throw py::value_error("weight, mean and square must have one shape");
    return {weight.mutable_data(), mean.mutable_data(), square.mutable_data(),
            static_cast<std::size_t>(weight.shape(1))};
}

void py_catch_up(Floats weight, Floats mean, Floats square, const Ids &rows, const Floats &step,
                 const std::optional<Floats> &mean_decay, const std::optional<Floats> &square_decay,
                 float eps, std::size_t n_threads) {
    const AdamRows adam = view(weight, mean, square);
    const std::size_t n = check_rows(rows, weight.shape(0));
    check_size(step, n, "step");
    for (const auto &decay : {mean_decay, square_decay})
        if (decay)
            check_size(*decay, n, "decay");
    const Missed missed{rows.data(), step.data(), mean_decay ? mean_decay->data() : nullptr,
                        square_decay ? square_decay->data() : nullptr, n};
    released([&] { catch_up(adam, missed, eps, n_threads); });
}

void py_adam_rows(Floats weight, Floats mean, Floats square, const Ids &rows,
                  const Floats &mean_decay, const Floats &square_decay, const Ids &columns,
                  const Floats &values, const Ids &starts, const Floats &matrix, float step,
                  float eps, std::size_t n_threads) {
    const AdamRows adam = view(weight, mean, square);
    const std::size_t n = check_rows(rows, weight.shape(0));
    if (matrix.ndim() != 2 || matrix.shape(1) != weight.shape(1))
        throw py::value_error("matrix must have shape [n, width], the width of weight");
    const SparseRows sums = sparse_rows(columns, values, starts, matrix.shape(0));
    if (sums.n_rows != n)
        throw py::value_error("starts must have one entry for each of rows");
    check_size(mean_decay, n, "mean_decay");
    check_size(square_decay, n, "square_decay");
    const Missed missed{rows.data(), nullptr, mean_decay.data(), square_decay.data(), n};
    const float *from = matrix.data();
    released([&] { adam_step(adam, missed, sums, from, step, eps, n_threads); });
}

void py_adam_flat(Floats weight, Floats mean, Floats square, const std::vector<Floats> &grads,
                  float step, float eps, std::size_t n_threads) {
    std::vector<const float *> pointers;
    std::vector<std::size_t> sizes;
    std::size_t total = 0;
    for (const Floats &grad : grads) {
        pointers.push_back(grad.data());
        sizes.push_back(static_cast<std::size_t>(grad.size()));
        total += sizes.back();
    }
    check_size(weight, total, "weight");
    check_size(mean, total, "mean");
    check_size(square, total, "square");
    const AdamRows adam{weight.mutable_data(), mean.mutable_data(), square.mutable_data(), total};
    released([&] { adam_step(adam, pointers, sizes, step, eps, n_threads); });
}

void check_columns(const std::vector<const Floats *> &arrays, py::ssize_t width) {
    for (const Floats *array : arrays)
        check_size(*array, static_cast<std::size_t>(width), "an array of one number a column");
}

void py_relu_norm(const Floats &product, const Floats &bias, const Floats &scale,
                  const Floats &shift, float eps, float momentum, Floats rectified, Floats out,
                  Floats moments, Floats running_mean, Floats running_variance,
                  std::size_t n_threads) {
    if (product.ndim() != 2 || product.shape(0) < 2)
        throw py::value_error("product must have shape [n, width], n >= 2");
    const auto n = static_cast<std::size_t>(product.shape(0));
    const auto width = static_cast<std::size_t>(product.shape(1));
    check_columns({&bias, &scale, &shift, &running_mean, &running_variance}, product.shape(1));
    check_size(rectified, n * width, "rectified");
    check_size(out, n * width, "out");
    check_size(moments, 2 * width, "moments");
    const ReluNorm layer{product.data(),
                         bias.data(),
                         scale.data(),
                         shift.data(),
                         n,
                         width,
                         eps,
                         momentum,
                         rectified.mutable_data(),
                         out.mutable_data(),
                         nullptr,
                         moments.mutable_data(),
                         moments.mutable_data() + width,
                         running_mean.mutable_data(),
                         running_variance.mutable_data()};
    released([&] { relu_norm(layer, n_threads); });
}

void py_relu_norm_backward(const Floats &grad, const Floats &rectified, const Floats &moments,
                           const Floats &scale, Floats product, Floats bias, Floats scale_out,
                           Floats shift_out, std::size_t n_threads) {
    if (grad.ndim() != 2)
        throw py::value_error("grad must have shape [n, width]");
    const auto n = static_cast<std::size_t>(grad.shape(0));
    const auto width = static_cast<std::size_t>(grad.shape(1));
    check_columns({&scale, &bias, &scale_out, &shift_out}, grad.shape(1));
    check_size(rectified, n * width, "rectified");
    check_size(product, n * width, "product");
    check_size(moments, 2 * width, "moments");
    const ReluNormGradient layer{grad.data(),
                                 rectified.data(),
                                 moments.data(),
                                 moments.data() + width,
                                 scale.data(),
                                 n,
                                 width,
                                 product.mutable_data(),
                                 bias.mutable_data(),
                                 scale_out.mutable_data(),
                                 shift_out.mutable_data()};
    released([&] { relu_norm_backward(layer, n_threads); });
}

void py_sparse_product(const Ids &columns, const Floats &values, const Ids &starts,
                       const Floats &weight, Floats out, std::size_t n_threads) {
    if (weight.ndim() != 2 || out.ndim() != 2 || weight.shape(1) != out.shape(1))
        throw py::value_error("weight and out must have shapes [n, width] of one width");
    const SparseRows rows = sparse_rows(columns, values, starts, weight.shape(0));
    if (starts.size() != out.shape(0))
        throw py::value_error("starts must have one entry for each row of out");
    const float *weights = weight.data();
    const auto width = static_cast<std::size_t>(weight.shape(1));
    float *to = out.mutable_data();
    released([&] { sparse_product(rows, weights, width, to, n_threads); });
}

double py_forward(SoftmaxRegression &self, const Floats &code, const Floats &weight,
                  const Floats &bias, const Ids &columns, const Floats &values, const Ids &starts,
                  float log_floor, std::optional<Floats> grad_code, std::size_t n_threads) {
    if (code.ndim() != 2 || weight.ndim() != 2 || code.shape(1) != weight.shape(1) ||
        code.size() == 0 || weight.size() == 0)
        throw py::value_error("code and weight must have shapes [n, n_bits] of one n_bits >= 1");
    check_size(bias, static_cast<std::size_t>(weight.shape(0)), "bias");
    if (starts.size() != code.shape(0))
        throw py::value_error("starts must have one entry for each row of code");
    const SparseRows target = sparse_rows(columns, values, starts, weight.shape(0));
    if (grad_code)
        check_size(*grad_code, static_cast<std::size_t>(code.size()), "grad_code");
    float *gradient = grad_code ? grad_code->mutable_data() : nullptr;
    const Decoder decoder{code.data(),
                          weight.data(),
                          bias.data(),
                          static_cast<std::size_t>(code.shape(0)),
                          static_cast<std::size_t>(code.shape(1)),
                          static_cast<std::size_t>(weight.shape(0))};
    double loss = 0;
    released([&] { loss = self.forward(decoder, target, log_floor, gradient, n_threads); });
    return loss;
}

void py_backward(const SoftmaxRegression &self, float factor, Floats weight, Floats bias,
                 std::size_t n_threads) {
    check_size(weight, self.n_targets() * self.n_bits(), "weight");
    check_size(bias, self.n_targets(), "bias");
    float *weights = weight.mutable_data(), *biases = bias.mutable_data();
    released([&] { self.backward(factor, weights, biases, n_threads); });
}

py::tuple py_exp_rows(Floats x, const Floats &bias, std::size_t n_threads) {
    if (x.ndim() != 2 || x.shape(1) == 0)
        throw py::value_error("x must have shape [n, width], width >= 1");
    check_size(bias, static_cast<std::size_t>(x.shape(1)), "bias");
    Floats top(x.shape(0)), sum(x.shape(0));
    const auto n = static_cast<std::size_t>(x.shape(0));
    const auto width = static_cast<std::size_t>(x.shape(1));
    const float *biases = bias.data();
    float *values = x.mutable_data(), *tops = top.mutable_data(), *sums = sum.mutable_data();
    released([&] { exp_rows(values, biases, n, width, tops, sums, n_threads); });
    return py::make_tuple(top, sum);
}

} // namespace

void bind_training(py::module_ &m) {
    m.def("catch_up", &py_catch_up, py::arg("weight").noconvert(), py::arg("mean").noconvert(),
          py::arg("square").noconvert(), py::arg("rows"), py::arg("step"), py::arg("mean_decay"),
          py::arg("square_decay"), py::arg("eps"), py::arg("n_threads"));
    m.def("adam_rows", &py_adam_rows, py::arg("weight").noconvert(), py::arg("mean").noconvert(),
          py::arg("square").noconvert(), py::arg("rows"), py::arg("mean_decay"),
          py::arg("square_decay"), py::arg("columns"), py::arg("values"), py::arg("starts"),
          py::arg("matrix"), py::arg("step"), py::arg("eps"), py::arg("n_threads"));
    m.def("adam_flat", &py_adam_flat, py::arg("weight").noconvert(), py::arg("mean").noconvert(),
          py::arg("square").noconvert(), py::arg("grads"), py::arg("step"), py::arg("eps"),
          py::arg("n_threads"));
    m.def("relu_norm", &py_relu_norm, py::arg("product"), py::arg("bias"), py::arg("scale"),
          py::arg("shift"), py::arg("eps"), py::arg("momentum"), py::arg("rectified").noconvert(),
          py::arg("out").noconvert(), py::arg("moments").noconvert(),
          py::arg("running_mean").noconvert(), py::arg("running_variance").noconvert(),
          py::arg("n_threads"));
    m.def("relu_norm_backward", &py_relu_norm_backward, py::arg("grad"), py::arg("rectified"),
          py::arg("moments"), py::arg("scale"), py::arg("product").noconvert(),
          py::arg("bias").noconvert(), py::arg("scale_out").noconvert(),
          py::arg("shift_out").noconvert(), py::arg("n_threads"));
    m.def("sparse_product", &py_sparse_product, py::arg("columns"), py::arg("values"),
          py::arg("starts"), py::arg("weight"), py::arg("out").noconvert(), py::arg("n_threads"));
    m.def("exp_rows", &py_exp_rows, py::arg("x").noconvert(), py::arg("bias"),
          py::arg("n_threads"));
    py::class_<SoftmaxRegression>(m, "SoftmaxRegression")
        .def(py::init<>())
        .def_property_readonly("n_batches", &SoftmaxRegression::n_batches)
        .def("forward", &py_forward, py::arg("code"), py::arg("weight"), py::arg("bias"),
             py::arg("columns"), py::arg("values"), py::arg("starts"), py::arg("log_floor"),
             py::arg("grad_code").noconvert(), py::arg("n_threads"))
        .def("backward", &py_backward, py::arg("factor"), py::arg("weight").noconvert(),
             py::arg("bias").noconvert(), py::arg("n_threads"));
}
