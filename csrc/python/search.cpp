// Bindings of the search engine: shapes in, GIL released.
#include "core/search/search.hpp"
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "python/bindings.hpp"

#include <limits>
#include <memory>
#include <optional>
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

using IdsArray = py::array_t<std::int64_t, py::array::c_style>;

Database database_of(const CodesArray &codes, const std::optional<IdsArray> &ids,
                     const Planes *planes) {
    Database database{view(codes)};
    if (planes && planes->n_blocks() != database.codes.n / active_isa().search.block_codes)
        throw py::value_error("planes were prepared from other codes");
    database.planes = planes;
    if (ids) {
        database.ids = ids->data();
        database.n_ids = static_cast<std::size_t>(ids->size());
        for (std::size_t i = 0; i < database.n_ids; ++i)
            if (database.id(i) >= database.codes.n || (i && database.ids[i] <= database.ids[i - 1]))
                throw py::value_error("ids must ascend and be below n");
    }
    return database;
}

py::tuple py_search(const CodesArray &codes, const CodesArray &query, std::size_t k,
                    std::size_t n_threads, const std::optional<IdsArray> &ids,
                    const Planes *planes) {
    const Codes queries = view(query);
    const Database database = database_of(codes, ids, planes);
    check(database.codes, queries);
    if (k > database.n())
        throw py::value_error("k must be at most n");
    const std::vector<py::ssize_t> shape = {query.shape(0), static_cast<py::ssize_t>(k)};
    py::array_t<std::int32_t> distances(shape);
    py::array_t<std::int64_t> found(shape);
    auto *out_distances = distances.mutable_data();
    auto *out_ids = found.mutable_data();
    released([&] { search(database, queries, k, scheduled(n_threads), out_distances, out_ids); });
    return py::make_tuple(distances, found);
}

py::tuple py_within(const CodesArray &codes, const CodesArray &query, std::size_t radius,
                    std::size_t n_threads, const std::optional<IdsArray> &ids,
                    const Planes *planes) {
    const Codes queries = view(query);
    const Database database = database_of(codes, ids, planes);
    check(database.codes, queries);
    Range range;
    released([&] { range = within(database, queries, radius, scheduled(n_threads)); });
    return py::make_tuple(as_array(std::move(range.lims)), as_array(std::move(range.distances)),
                          as_array(std::move(range.ids)));
}

py::tuple py_pairs_within(const CodesArray &codes, std::size_t radius, std::size_t n_threads) {
    const Codes rows = view(codes);
    check(rows, rows);
    Pairs pairs;
    released([&] { pairs = pairs_within(rows, radius, scheduled(n_threads)); });
    return py::make_tuple(as_array(std::move(pairs.first)), as_array(std::move(pairs.second)),
                          as_array(std::move(pairs.distances)));
}

std::unique_ptr<Planes> make_planes(const CodesArray &codes, std::size_t n_threads) {
    const Codes rows = view(codes);
    check(rows, rows);
    py::gil_scoped_release release;
    return std::make_unique<Planes>(rows, active_isa().search, n_threads);
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
    for (const InstructionSet *isa : available_isas())
        names.emplace_back(isa->name);
    return names;
}

} // namespace

void bind_search(py::module_ &m) {
    py::class_<Planes>(m, "Planes", "Bit planes of codes, for many searches.")
        .def(py::init(&make_planes), py::arg("codes").noconvert(), py::arg("n_threads"))
        .def_property_readonly("nbytes", &Planes::n_bytes_total);
    m.def("search", &py_search, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("k"), py::arg("n_threads"), py::arg("ids").noconvert() = py::none(),
          py::arg("planes") = py::none());
    m.def("within", &py_within, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("radius"), py::arg("n_threads"), py::arg("ids").noconvert() = py::none(),
          py::arg("planes") = py::none());
    m.def("pairs_within", &py_pairs_within, py::arg("codes").noconvert(), py::arg("radius"),
          py::arg("n_threads"));
    m.def("distances", &py_distances, py::arg("codes").noconvert(), py::arg("query").noconvert(),
          py::arg("n_threads"));
    m.def(
        "read_all",
        [](const CodesArray &bytes) {
            return active_isa().search.read_all(bytes.data(),
                                                static_cast<std::size_t>(bytes.nbytes()));
        },
        "Read an array once: what a benchmark of memory times.");
    m.def(
        "run_logic",
        [](std::size_t n) {
            active_isa().search.run_logic(n);
            return 12 * n * active_isa().search.block_codes;
        },
        "Run 12 n logic operations on words; returns how many bits they covered.");
    m.def(
        "isa", [] { return std::string(active_isa().name); },
        "Instruction set in use; SSBHASH_ISA forces one.");
    m.def("isas", &isa_names, "Instruction sets that were built in and run here, best first.");
    m.attr("compiler") = __VERSION__;
}
