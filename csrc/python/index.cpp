// Bindings of the index: building and searching segments whose arrays Python holds.
#include "core/index/index_search.hpp"
#include "core/index/near_pairs.hpp"
#include "python/bindings.hpp"

#include <limits>
#include <optional>
#include <pybind11/stl.h>

namespace py = pybind11;
using namespace ssbhash;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Indices = Array<std::uint32_t>;
using Bytes = Array<std::uint8_t>;
using TableArrays = std::tuple<Indices, Bytes, std::optional<Bytes>>; // no copies if compact

Codes view(const Bytes &array) {
    if (array.ndim() != 2 || array.shape(1) == 0)
        throw py::value_error("codes must be a C-contiguous uint8 array of two dimensions");
    return {array.data(), static_cast<std::size_t>(array.shape(0)),
            static_cast<std::size_t>(array.shape(1))};
}

void require(bool holds, const char *what) {
    if (!holds)
        throw py::value_error(what);
}

// A segment with the arrays that it looks into.
struct HeldSegment {
    Segment segment;
    std::optional<Parts> parts;
    std::vector<py::object> arrays;
};

std::unique_ptr<HeldSegment> make_segment(const Bytes &codes,
                                          const std::optional<Array<std::int64_t>> &ids,
                                          std::int64_t first_id,
                                          const std::optional<std::pair<Indices, Indices>> &members,
                                          const std::vector<TableArrays> &tables, bool ascending) {
    auto held = std::make_unique<HeldSegment>();
    Segment &segment = held->segment;
    segment.codes = view(codes);
    require(segment.codes.n < std::numeric_limits<std::uint32_t>::max(),
            "a segment must have fewer than 2^32 - 1 rows");
    segment.n_items = segment.codes.n;
    held->arrays.push_back(codes);
    if (members) {
        const auto &[first, all] = *members;
        require(static_cast<std::size_t>(first.size()) == segment.codes.n + 1,
                "first_member must have an entry more than codes");
        segment.first_member = first.data();
        segment.members = all.data();
        segment.n_items = static_cast<std::size_t>(all.size());
        held->arrays.insert(held->arrays.end(), {first, all});
    }
    segment.first_id = first_id;
    segment.ascending = ascending;
    if (ids) {
        require(static_cast<std::size_t>(ids->size()) == segment.n_items,
                "ids must have an entry for each item");
        segment.ids = ids->data();
        held->arrays.push_back(*ids);
    }
    if (!tables.empty()) {
        require(tables.size() <= kMaxTables, "too many tables");
        held->parts.emplace(segment.codes.n_bytes, tables.size());
        segment.parts = &*held->parts;
        for (std::size_t t = 0; t < tables.size(); ++t) {
            const auto &[starts, rows, copies] = tables[t];
            require(static_cast<std::size_t>(starts.size()) ==
                            (std::size_t{1} << segment.parts->width(t)) + 1 &&
                        static_cast<std::size_t>(rows.size()) ==
                            segment.codes.n * row_bytes(segment.codes.n) &&
                        (!copies || static_cast<std::size_t>(copies->size()) ==
                                        segment.codes.n * segment.codes.n_bytes),
                    "the arrays of a table do not fit the codes");
            segment.tables.push_back(
                {starts.data(), rows.data(), copies ? copies->data() : nullptr});
            held->arrays.insert(held->arrays.end(), {starts, rows});
            if (copies)
                held->arrays.push_back(*copies);
        }
    }
    return held;
}

std::optional<std::tuple<Bytes, Indices, Indices>> py_group_equal(const Bytes &codes,
                                                                  std::size_t most) {
    const Codes rows = view(codes);
    require(rows.n < std::numeric_limits<std::uint32_t>::max(), "at most 2^32 - 2 codes");
    Distinct found;
    released([&] { found = group_equal(rows, most, scheduled(1).check()); });
    if (found.codes.empty())
        return std::nullopt;
    const auto n = static_cast<py::ssize_t>(found.first_member.size() - 1);
    return std::tuple{Bytes(as_array(std::move(found.codes)).reshape({n, codes.shape(1)})),
                      Indices(as_array(std::move(found.first_member))),
                      Indices(as_array(std::move(found.members)))};
}

std::vector<TableArrays> build_tables(const Bytes &codes, std::size_t n_tables, bool copies,
                                      std::size_t n_threads) {
    const Codes rows = view(codes);
    require(rows.n < std::numeric_limits<std::uint32_t>::max(), "at most 2^32 - 2 codes");
    require(n_tables >= 1 && n_tables <= kMaxTables, "n_tables must be 1 ... 16");
    const Parts parts(rows.n_bytes, n_tables);
    struct Places {
        std::uint32_t *starts;
        std::uint8_t *rows, *codes;
    };
    std::vector<TableArrays> tables;
    std::vector<Places> places;
    for (std::size_t t = 0; t < n_tables; ++t) {
        Indices starts((py::ssize_t{1} << parts.width(t)) + 1);
        Bytes order({codes.shape(0), static_cast<py::ssize_t>(row_bytes(rows.n))});
        std::optional<Bytes> own;
        if (copies)
            own = Bytes({codes.shape(0), codes.shape(1)});
        places.push_back(
            {starts.mutable_data(), order.mutable_data(), own ? own->mutable_data() : nullptr});
        tables.emplace_back(starts, order, own);
    }
    released([&] {
        const Schedule schedule = scheduled(n_threads);
        parallel_for(
            n_tables, n_threads,
            [&](std::size_t t, const Check &check) {
                build_table(rows, parts, t, places[t].starts, places[t].rows, places[t].codes,
                            check);
            },
            schedule.poll);
    });
    return tables;
}

// Segments, each with the plane of the items that count, or None.
using Parted = std::vector<std::pair<const HeldSegment *, std::optional<Bytes>>>;

using Excluded = std::optional<Array<std::int64_t>>;
using Mask = std::optional<Array<bool>>;

std::vector<std::vector<Neighbour>> run(const Parted &parted, const Bytes &query, std::size_t k,
                                        std::size_t max_distance, const Excluded &excluded,
                                        const Mask &mask, std::size_t n_threads) {
    const Codes codes = view(query);
    std::vector<Segment> segments;
    for (const auto &[held, allowed] : parted) {
        require(held->segment.codes.n_bytes == codes.n_bytes,
                "codes and queries must have the same n_bytes");
        segments.push_back(held->segment);
        if (!allowed)
            continue;
        require(static_cast<std::size_t>(allowed->size()) == (held->segment.n_items + 7) / 8,
                "allowed must have a bit for each item");
        segments.back().allowed = allowed->data();
    }
    require(!excluded || static_cast<std::size_t>(excluded->size()) == codes.n,
            "excluded must have an id for each query");
    IndexQueries queries{codes, k, max_distance, excluded ? excluded->data() : nullptr, {}};
    if (mask)
        queries.mask = {reinterpret_cast<const std::uint8_t *>(mask->data()),
                        static_cast<std::size_t>(mask->size())};
    std::vector<std::vector<Neighbour>> found;
    try {
        released([&] { found = search_index(segments, queries, scheduled(n_threads)); });
    } catch (const Damaged &damage) {
        throw py::value_error(damage.what());
    }
    return found;
}

// [n_queries, k], filled up with id -1 and the largest distance.
py::tuple py_search(const Parted &segments, const Bytes &query, std::size_t k,
                    std::size_t max_distance, const Excluded &excluded, const Mask &mask,
                    std::size_t n_threads) {
    require(k >= 1, "k must be at least 1");
    const auto found = run(segments, query, k, max_distance, excluded, mask, n_threads);
    const std::vector<py::ssize_t> shape = {query.shape(0), static_cast<py::ssize_t>(k)};
    Array<std::int32_t> distances(shape);
    Array<std::int64_t> ids(shape);
    std::int32_t *distance = distances.mutable_data();
    std::int64_t *id = ids.mutable_data();
    for (const auto &one : found)
        for (std::size_t i = 0; i < k; ++i) {
            const bool exists = i < one.size();
            *distance++ = exists ? one[i].distance : std::numeric_limits<std::int32_t>::max();
            *id++ = exists ? one[i].id : -1;
        }
    return py::make_tuple(distances, ids);
}

py::tuple py_within(const Parted &segments, const Bytes &query, std::size_t radius,
                    const Excluded &excluded, const Mask &mask, std::size_t n_threads) {
    auto found = run(segments, query, 0, radius, excluded, mask, n_threads);
    std::vector<std::int64_t> lims{0}, ids;
    std::vector<std::int32_t> distances;
    for (auto &one : found) {
        for (const Neighbour &neighbour : one) {
            distances.push_back(neighbour.distance);
            ids.push_back(neighbour.id);
        }
        lims.push_back(static_cast<std::int64_t>(ids.size()));
        std::vector<Neighbour>().swap(one);
    }
    return py::make_tuple(as_array(std::move(lims)), as_array(std::move(distances)),
                          as_array(std::move(ids)));
}

Array<std::int64_t> py_near_groups(const Bytes &codes, std::size_t radius, std::size_t n_threads,
                                   const py::object &progress) {
    const Codes rows = view(codes);
    require(rows.n < std::numeric_limits<std::uint32_t>::max(), "at most 2^32 - 2 codes");
    std::vector<std::int64_t> groups;
    const Schedule schedule = scheduled(n_threads, progress);
    released([&] { groups = near_groups(rows, radius, schedule); });
    return as_array(std::move(groups));
}

} // namespace

void bind_index(py::module_ &m) {
    py::class_<HeldSegment>(m, "Segment", "A part of an index that never changes.")
        .def(py::init(&make_segment), py::arg("codes").noconvert(), py::kw_only(),
             py::arg("ids").noconvert() = py::none(), py::arg("first_id") = 0,
             py::arg("members") = py::none(), py::arg("tables") = std::vector<TableArrays>(),
             py::arg("ascending") = true);
    m.def("group_equal", &py_group_equal, py::arg("codes").noconvert(), py::kw_only(),
          py::arg("most"));
    m.def("tables_for", &tables_for, py::kw_only(), py::arg("n"), py::arg("n_bits"));
    m.def("build_tables", &build_tables, py::arg("codes").noconvert(), py::kw_only(),
          py::arg("n_tables"), py::arg("copies"), py::arg("n_threads"));
    m.def(
        "share_probed",
        [](const HeldSegment &held, const Bytes &queries, std::size_t k) {
            require(held.segment.parts != nullptr, "the segment has no tables");
            return share_probed(held.segment, view(queries), k);
        },
        py::arg("segment"), py::arg("queries").noconvert(), py::kw_only(), py::arg("k"));
    m.def("near_groups", &py_near_groups, py::arg("codes").noconvert(), py::kw_only(),
          py::arg("radius"), py::arg("n_threads"), py::arg("progress"));
    m.def("index_search", &py_search, py::arg("segments"), py::arg("queries").noconvert(),
          py::kw_only(), py::arg("k"), py::arg("max_distance"), py::arg("excluded").noconvert(),
          py::arg("mask").noconvert(), py::arg("n_threads"));
    m.def("index_within", &py_within, py::arg("segments"), py::arg("queries").noconvert(),
          py::kw_only(), py::arg("radius"), py::arg("excluded").noconvert(),
          py::arg("mask").noconvert(), py::arg("n_threads"));
}
