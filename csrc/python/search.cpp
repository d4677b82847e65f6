// Bindings of the search engine: shapes in, GIL released. Typed in ssbhash/_core.pyi.
#include "core/search/search.hpp"
#include "core/base/dispatch.hpp"
#include "core/index/near_pairs.hpp"
#include "core/search/radius.hpp"
#include "python/bindings.hpp"

#include <limits>
#include <memory>
#include <optional>
#include <pybind11/stl.h>

namespace py = pybind11;
using namespace ssbhash;

namespace {

using CodesArray = py::array_t<std::uint8_t, py::array::c_style>;
using BitsArray = py::array_t<std::uint8_t, py::array::c_style>;
using IdsArray = py::array_t<std::int64_t, py::array::c_style>;
using DistancesArray = py::array_t<std::int32_t, py::array::c_style>;

Codes view(const CodesArray &array) {
    if (array.ndim() != 2 || array.shape(1) == 0)
        throw py::value_error("codes must have shape [n, n_bytes], n_bytes >= 1");
    return {array.data(), static_cast<std::size_t>(array.shape(0)),
            static_cast<std::size_t>(array.shape(1))};
}

// Keeps the arrays that a Database points into.
class PyDatabase {
  public:
    PyDatabase(CodesArray codes, std::optional<IdsArray> ids, std::optional<BitsArray> allowed,
               std::shared_ptr<const Planes> planes)
        : codes_(std::move(codes)), ids_(std::move(ids)), allowed_(std::move(allowed)),
          planes_(std::move(planes)) {
        database_.codes = view(codes_);
        const std::size_t n = database_.codes.n;
        if (planes_ && !planes_->fits(database_.codes))
            throw py::value_error("planes were prepared from other codes");
        database_.planes = planes_.get();
        if (ids_ && allowed_)
            throw py::value_error("give ids or allowed, not both");
        if (allowed_) {
            if (static_cast<std::size_t>(allowed_->size()) != (n + 7) / 8)
                throw py::value_error("allowed must have a bit for each row");
            database_.allowed = allowed_->data();
        }
        if (ids_) {
            database_.ids = ids_->data();
            database_.n_ids = static_cast<std::size_t>(ids_->size());
            for (std::size_t i = 0; i < database_.n_ids; ++i)
                if (database_.id(i) >= n || (i && database_.ids[i] <= database_.ids[i - 1]))
                    throw py::value_error("ids must ascend and be below n");
        }
    }

    // The database for these queries, with its filter in the faster form.
    Database database_for(const Codes &queries, FilterMemory &memory) const {
        if (queries.n_bytes != database_.codes.n_bytes)
            throw py::value_error("codes and queries must have the same n_bytes");
        Database chosen = database_;
        choose_filter(chosen, queries.n, memory);
        return chosen;
    }
    const Database &unfiltered() const {
        if (ids_ || allowed_)
            throw py::value_error("pairs are searched among all rows");
        return database_;
    }

  private:
    CodesArray codes_;
    std::optional<IdsArray> ids_;
    std::optional<BitsArray> allowed_;
    std::shared_ptr<const Planes> planes_;
    Database database_{};
};

std::shared_ptr<Planes> make_planes(const CodesArray &codes, std::size_t n_threads) {
    const Codes rows = view(codes);
    std::shared_ptr<Planes> planes;
    released([&] { planes = std::make_shared<Planes>(rows, active_isa(), scheduled(n_threads)); });
    return planes;
}

// Arrays [n, k] for a ranking.
struct Output {
    py::array_t<std::int32_t> distances;
    py::array_t<std::int64_t> ids;

    Output(py::ssize_t n, std::size_t k)
        : distances({n, static_cast<py::ssize_t>(k)}), ids({n, static_cast<py::ssize_t>(k)}) {}
    py::tuple tuple() const { return py::make_tuple(distances, ids); }
};

py::tuple py_search(const PyDatabase &database, const CodesArray &query, std::size_t k,
                    std::size_t max_distance, std::size_t n_threads) {
    const Codes queries = view(query);
    FilterMemory memory;
    const Database rows = database.database_for(queries, memory);
    Output out(query.shape(0), k);
    auto *distances = out.distances.mutable_data();
    auto *ids = out.ids.mutable_data();
    released([&] { search(rows, queries, k, scheduled(n_threads), distances, ids, max_distance); });
    return out.tuple();
}

py::tuple py_merge(const std::vector<std::pair<DistancesArray, IdsArray>> &parts, std::size_t k,
                   std::size_t n_threads) {
    if (parts.empty())
        throw py::value_error("parts must not be empty");
    const py::ssize_t n = parts[0].second.shape(0);
    std::vector<Ranking> rankings;
    for (const auto &[distances, ids] : parts) {
        if (ids.ndim() != 2 || distances.ndim() != 2 || ids.shape(0) != n ||
            distances.shape(0) != n || ids.shape(1) != distances.shape(1))
            throw py::value_error("parts must have the shapes [n_queries, k] of one n_queries");
        rankings.push_back({distances.data(), ids.data(), static_cast<std::size_t>(ids.shape(1))});
    }
    Output out(n, k);
    auto *distances = out.distances.mutable_data();
    auto *ids = out.ids.mutable_data();
    released([&] {
        merge(rankings, static_cast<std::size_t>(n), k, scheduled(n_threads), distances, ids);
    });
    return out.tuple();
}

// Runs without the GIL; too many results become the Python exception of that name.
template <typename Run>
void counted(Run &&run) {
    try {
        released(run);
    } catch (const TooManyResults &error) {
        const py::object type = py::module_::import("ssbhash.arrays").attr("TooManyResultsError");
        py::set_error(type, py::int_(error.n_results));
        throw py::error_already_set();
    }
}

void check_radii(const IdsArray &radii, const Codes &queries) {
    if (static_cast<std::size_t>(radii.size()) != queries.n)
        throw py::value_error("radii must have one number for each query");
    for (py::ssize_t i = 0; i < radii.size(); ++i)
        if (radii.data()[i] < 0)
            throw py::value_error("radii must not be negative");
}

py::tuple py_within(const PyDatabase &database, const CodesArray &query, const IdsArray &radii,
                    std::uint64_t max_results, std::size_t n_threads) {
    const Codes queries = view(query);
    check_radii(radii, queries);
    FilterMemory memory;
    const Database rows = database.database_for(queries, memory);
    Range range;
    counted(
        [&] { range = within(rows, queries, radii.data(), max_results, scheduled(n_threads)); });
    return py::make_tuple(as_array(std::move(range.lims)), as_array(std::move(range.distances)),
                          as_array(std::move(range.ids)));
}

py::array_t<std::int64_t> py_count_within(const PyDatabase &database, const CodesArray &query,
                                          const IdsArray &radii, std::size_t n_threads) {
    const Codes queries = view(query);
    check_radii(radii, queries);
    FilterMemory memory;
    const Database rows = database.database_for(queries, memory);
    std::vector<std::int64_t> counts;
    released([&] { counts = count_within(rows, queries, radii.data(), scheduled(n_threads)); });
    return as_array(std::move(counts));
}

py::tuple py_pairs_within(const PyDatabase &database, std::size_t radius, std::uint64_t max_results,
                          std::size_t n_threads, const py::object &progress) {
    const Database &rows = database.unfiltered();
    Pairs pairs;
    const Schedule schedule = scheduled(n_threads, progress);
    counted([&] { pairs = near_pairs(rows, radius, max_results, schedule); });
    return py::make_tuple(as_array(std::move(pairs.first)), as_array(std::move(pairs.second)),
                          as_array(std::move(pairs.distances)));
}

void check_distances(const Codes &a, const Codes &b) {
    if (a.n_bytes != b.n_bytes)
        throw py::value_error("both must have the same n_bytes");
    if (a.n_bytes * 8 > std::numeric_limits<std::uint16_t>::max())
        throw py::value_error("distances of such wide codes do not fit in uint16");
}

py::array_t<std::uint16_t> py_distances(const CodesArray &codes, const CodesArray &query,
                                        std::size_t n_threads) {
    const Codes database = view(codes), queries = view(query);
    check_distances(database, queries);
    py::array_t<std::uint16_t> out({query.shape(0), codes.shape(0)});
    auto *data = out.mutable_data();
    released([&] { distances(database, queries, scheduled(n_threads), data); });
    return out;
}

py::array_t<std::uint16_t> py_paired_distances(const CodesArray &first, const CodesArray &second,
                                               std::size_t n_threads) {
    const Codes a = view(first), b = view(second);
    check_distances(a, b);
    if (a.n != b.n)
        throw py::value_error("both must have the same number of rows");
    py::array_t<std::uint16_t> out(first.shape(0));
    auto *data = out.mutable_data();
    released([&] { paired_distances(a, b, scheduled(n_threads), data); });
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
    py::class_<Planes, std::shared_ptr<Planes>>(m, "Planes",
                                                "Bit planes of codes, for many searches.")
        .def(py::init(&make_planes), py::arg("codes").noconvert(), py::kw_only(),
             py::arg("n_threads"))
        .def_property_readonly("nbytes", &Planes::n_bytes_total)
        .def_property_readonly("is_ordered",
                               [](const Planes &planes) { return planes.balls() != nullptr; });
    py::class_<PyDatabase>(m, "Database", "The codes to be searched: all, or some of them.")
        .def(py::init<CodesArray, std::optional<IdsArray>, std::optional<BitsArray>,
                      std::shared_ptr<const Planes>>(),
             py::arg("codes").noconvert(), py::kw_only(), py::arg("ids").noconvert() = py::none(),
             py::arg("allowed").noconvert() = py::none(), py::arg("planes") = py::none());
    m.def("search", &py_search, py::arg("database"), py::arg("queries").noconvert(), py::kw_only(),
          py::arg("k"), py::arg("max_distance"), py::arg("n_threads"));
    m.def("merge", &py_merge, py::arg("parts"), py::kw_only(), py::arg("k"), py::arg("n_threads"));
    m.def("within", &py_within, py::arg("database"), py::arg("queries").noconvert(), py::kw_only(),
          py::arg("radii").noconvert(), py::arg("max_results"), py::arg("n_threads"));
    m.def("count_within", &py_count_within, py::arg("database"), py::arg("queries").noconvert(),
          py::kw_only(), py::arg("radii").noconvert(), py::arg("n_threads"));
    m.def("pairs_within", &py_pairs_within, py::arg("database"), py::kw_only(), py::arg("radius"),
          py::arg("max_results"), py::arg("n_threads"), py::arg("progress"));
    m.def("distances", &py_distances, py::arg("codes").noconvert(), py::arg("queries").noconvert(),
          py::kw_only(), py::arg("n_threads"));
    m.def("paired_distances", &py_paired_distances, py::arg("first").noconvert(),
          py::arg("second").noconvert(), py::kw_only(), py::arg("n_threads"));
    m.def(
        "read_all",
        [](const CodesArray &array) {
            return active_isa().search.read_all(array.data(),
                                                static_cast<std::size_t>(array.nbytes()));
        },
        py::arg("array"), "Read an array once: what a benchmark of memory times.");
    m.def(
        "run_logic",
        [](std::size_t n) {
            active_isa().search.run_logic(n);
            return 12 * n * active_isa().search.block_codes;
        },
        py::arg("n"), "Run 12 n logic operations on words; returns how many bits they covered.");
    m.def(
        "isa", [] { return std::string(active_isa().name); },
        "Instruction set in use; SSBHASH_ISA forces one.");
    m.def("isas", &isa_names, "Instruction sets that were built in and run here, best first.");
    m.def("set_isa", &set_active_isa, py::arg("name"),
          "For tests: calls that begin later use this instruction set.");
    m.attr("compiler") = __VERSION__;
}
