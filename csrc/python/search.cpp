// Bindings of the search engine: shapes in, GIL released.
#include "core/search.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"
#include "python/bindings.hpp"

#include <limits>
#include <pybind11/stl.h>

namespace py = pybind11;
using namespace ssbhash;

namespace {

using CodesArray = py::array_t<std::uint8_t, py::array::c_style>;

Codes view(const CodesArray &array) {
    if (array.ndim() != 2)
        throw py::value_error("codes must be a C-contiguous uint8 array of two dimensions");
    return {array.data(), static_cast<std::size_t>(array.shape(0)),
            static_cast<std::size_t>(array.shape(1))};
}

void check(const Codes &database, const Codes &queries) {
    if (database.n_bytes != queries.n_bytes || database.n_bytes == 0)
        throw py::value_error("codes and queries must have the same n_bytes >= 1");
}

template <typename T>
py::array_t<T> as_array(std::vector<T> &&values) {
    auto *owned = new std::vector<T>(std::move(values));
    py::capsule owner(owned, [](void *p) { delete static_cast<std::vector<T> *>(p); });
    return py::array_t<T>(static_cast<py::ssize_t>(owned->size()), owned->data(), owner);
}

py::tuple py_search(const CodesArray &codes, const CodesArray &query, std::size_t k,
                    std::size_t n_threads) {
    const Codes database = view(codes), queries = view(query);
    check(database, queries);
    if (k > database.n)
        throw py::value_error("k must be at most n");
    const std::vector<py::ssize_t> shape = {query.shape(0), static_cast<py::ssize_t>(k)};
    py::array_t<std::int32_t> distances(shape);
    py::array_t<std::int64_t> ids(shape);
    auto *out_distances = distances.mutable_data();
    auto *out_ids = ids.mutable_data();
    released([&] { search({database}, queries, k, scheduled(n_threads), out_distances, out_ids); });
    return py::make_tuple(distances, ids);
}

py::tuple py_within(const CodesArray &codes, const CodesArray &query, std::size_t radius,
                    std::size_t n_threads) {
    const Codes database = view(codes), queries = view(query);
    check(database, queries);
    Range range;
    released([&] { range = within({database}, queries, radius, scheduled(n_threads)); });
    return py::make_tuple(as_array(std::move(range.lims)), as_array(std::move(range.distances)),
                          as_array(std::move(range.ids)));
}

py::array_t<std::uint16_t> py_distances(const CodesArray &codes, const CodesArray &query,
                                        std::size_t n_threads) {
    const Codes database = view(codes), queries = view(query);
    check(database, queries);
    if (database.n_bytes * 8 > std::numeric_limits<std::uint16_t>::max())
        throw py::value_error("distances of such wide codes do not fit in uint16");
    py::array_t<std::uint16_t> out({query.shape(0), codes.shape(0)});
    auto *data = out.mutable_data();
    released([&] { distances(database, queries, scheduled(n_threads), data); });
    return out;
}

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const Kernels *kernels : available_kernels())
        names.emplace_back(kernels->name);
    return names;
}

} // namespace

void bind_search(py::module_ &m) {
    m.def("search", &py_search, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("k"), py::arg("n_threads"));
    m.def("within", &py_within, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("radius"), py::arg("n_threads"));
    m.def("distances", &py_distances, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("n_threads"));
    m.def(
        "isa", [] { return std::string(active_kernels().name); },
        "Instruction set in use; SSBHASH_ISA forces one.");
    m.def("isas", &isa_names, "Instruction sets that were built in and run here, best first.");
    m.attr("compiler") = __VERSION__;
}
