// Bindings of batches: results are numpy arrays that own what the core returned.
#include "core/training/csr_batches.hpp"
#include "python/bindings.hpp"

#include <utility>

namespace py = pybind11;
using namespace ssbhash;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<std::int64_t, py::array::c_style>;

template <typename Index>
py::tuple py_cut_rows(const py::array_t<Index, py::array::c_style> &indptr,
                      const py::array_t<Index, py::array::c_style> &indices, const Floats &values,
                      const Ids &ids) {
    if (indices.size() != values.size())
        throw py::value_error("indices and values must have one size");
    for (py::ssize_t i = 0; i < ids.size(); ++i) {
        const std::int64_t row = ids.data()[i];
        if (row < 0 || row + 1 >= indptr.size())
            throw py::index_error("ids must be 0 ... n_rows - 1");
        if (indptr.data()[row] < 0 || indptr.data()[row + 1] > indices.size())
            throw py::index_error("indptr must lie within indices");
    }
    Batch batch = cut_rows(indptr.data(), indices.data(), values.data(), ids.data(),
                           static_cast<std::size_t>(ids.size()));
    return py::make_tuple(as_array(std::move(batch.columns)), as_array(std::move(batch.values)),
                          as_array(std::move(batch.rows)), as_array(std::move(batch.starts)));
}

py::tuple py_transpose(const Ids &columns, const Ids &rows, const Floats &values) {
    if (columns.size() != rows.size() || columns.size() != values.size())
        throw py::value_error("columns, rows and values must have one size");
    for (py::ssize_t i = 0; i < columns.size(); ++i)
        if (columns.data()[i] < 0)
            throw py::index_error("columns must not be negative");
    std::vector<std::int64_t> present;
    Batch batch = transpose(columns.data(), rows.data(), values.data(),
                            static_cast<std::size_t>(columns.size()), present);
    return py::make_tuple(as_array(std::move(present)), as_array(std::move(batch.columns)),
                          as_array(std::move(batch.values)), as_array(std::move(batch.starts)));
}

} // namespace

void bind_csr_batches(py::module_ &m) {
    m.def("cut_rows", &py_cut_rows<std::int32_t>, py::arg("indptr").noconvert(),
          py::arg("indices").noconvert(), py::arg("values").noconvert(), py::arg("ids"));
    m.def("cut_rows", &py_cut_rows<std::int64_t>, py::arg("indptr").noconvert(),
          py::arg("indices").noconvert(), py::arg("values").noconvert(), py::arg("ids"));
    m.def("transpose", &py_transpose, py::arg("columns"), py::arg("rows"), py::arg("values"));
}
