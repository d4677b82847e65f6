// Collects what one query finds in one segment.
#pragma once

#include "core/base/threads.hpp"
#include "core/index/segment.hpp"
#include "core/search/search_kernels.hpp"

#include <cstdint>
#include <limits>
#include <vector>

namespace ssbhash {

constexpr std::int64_t kNoId = std::numeric_limits<std::int64_t>::max(); // no item has it

// Ids that may be found: those with mask[id]. A mask is read for items that were hit, so that a
// query does not pay for its length.
struct IdMask {
    const std::uint8_t *mask = nullptr; // [n] bytes, or null: all
    std::size_t n = 0;

    bool has(std::int64_t id) const {
        return !mask || (static_cast<std::size_t>(id) < n && mask[id] != 0);
    }
};

struct Query {
    const std::uint8_t *code;
    std::size_t k;         // 0: all within max_distance
    std::int32_t limit;    // distances must be below it
    std::int64_t excluded; // an id that must not be found, or kNoId
    IdMask mask;
};

// A sink of rows. It keeps their items: the k smallest (distance, id), or all below the limit.
class Collector : public Sink {
  public:
    Collector(const Segment &segment, const Query &query, const SearchKernels &kernels);
    Collector(const Collector &) = delete;
    Collector &operator=(const Collector &) = delete;

    // Searches through the tables. Returns false, unfinished, once that seems to cost more than a
    // scan, whose cost is counted in codes that are read in order.
    bool probe(double scan_cost, const Check &check);
    void scan_all_rows(const Check &check);
    void add_row(std::size_t row, std::int32_t distance);

    // Returns what was found, ascending by (distance, id).
    std::vector<Neighbour> take();

  private:
    class Probes;

    static void make_room(Sink &sink);
    void consume();
    void prefetch_list(const Table &table, std::size_t place) const;
    void scan_list(std::size_t begin, std::size_t end);
    const std::uint8_t *gather(std::size_t begin, std::size_t end);
    bool is_wanted(std::size_t item) const;
    void prefetch_item(std::size_t item) const;
    bool add_item(std::size_t item, std::int32_t distance);
    void keep_smallest();

    const Segment &segment_;
    const Query query_;
    const SearchKernels &kernels_;
    std::vector<std::uint32_t> counts_;
    std::vector<Neighbour> offered_, kept_;
    std::vector<std::uint8_t> gathered_; // codes of a list without copies
    std::int64_t last_kept_;             // at distance limit - 1 only ids smaller than this qualify
    std::size_t n_added_ = 0;            // items of the row that is being added
    const Probes *probes_ = nullptr;     // null: rows are offered; else places in a table
};

// An object, so that sorting does not call it through a pointer.
inline constexpr auto is_before = [](const Neighbour &a, const Neighbour &b) {
    return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
};

} // namespace ssbhash
