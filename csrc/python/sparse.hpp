// Arrays as the core takes them, checked.
#pragma once

#include "core/training/training.hpp"

#include <cstdint>
#include <pybind11/numpy.h>
#include <string>

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style>;
using Ids = py::array_t<std::int64_t, py::array::c_style>;

inline std::size_t check_rows(const Ids &rows, py::ssize_t n_rows) {
    for (py::ssize_t i = 0; i < rows.size(); ++i)
        if (rows.data()[i] < 0 || rows.data()[i] >= n_rows)
            throw py::index_error("rows must be 0 ... n_rows - 1");
    return static_cast<std::size_t>(rows.size());
}

inline void check_size(const Floats &array, std::size_t size, const char *name) {
    if (static_cast<std::size_t>(array.size()) != size)
        throw py::value_error(std::string(name) + " has the wrong size");
}

inline ssbhash::SparseRows sparse_rows(const Ids &columns, const Floats &values, const Ids &starts,
                                       py::ssize_t n_columns) {
    const std::size_t n_values = check_rows(columns, n_columns);
    check_size(values, n_values, "values");
    std::int64_t last = 0;
    for (py::ssize_t i = 0; i < starts.size(); last = starts.data()[i++])
        if (starts.data()[i] < last || starts.data()[i] > columns.size())
            throw py::index_error("starts must ascend, up to the number of values");
    return {columns.data(), starts.data(), values.data(), static_cast<std::size_t>(starts.size()),
            n_values};
}
