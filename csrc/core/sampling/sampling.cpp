#include "core/sampling/sampling.hpp"
#include "core/base/dispatch.hpp"
#include "core/sampling/bernoulli.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>

namespace ssbhash {

namespace {

constexpr std::size_t kTileUnits = 256; // buffers of a tile stay in L1
constexpr std::size_t kTaskTiles = 64;

std::size_t size_of(LogitType type) {
    return type == LogitType::float64 ? 8 : type == LogitType::float32 ? 4 : 2;
}

std::size_t units_per_row(const Logits &logits) { return (logits.n_bits + 7) / 8; }

// Hands out units of 8 logits: in place if the strides allow it, else gathered in a buffer.
class Reader {
  public:
    explicit Reader(const Logits &logits)
        : logits_(logits), size_(size_of(logits.type)), per_row_(units_per_row(logits)),
          stride_(logits.row_stride / static_cast<std::ptrdiff_t>(size_)),
          in_place_(logits.bit_stride == static_cast<std::ptrdiff_t>(size_) &&
                    logits.row_stride % static_cast<std::ptrdiff_t>(size_) == 0 &&
                    stride_ >= static_cast<std::ptrdiff_t>(logits.n_bits)) {}

    // Returns n units from `first` on, followed by zeros up to n_padded units.
    Units units(std::size_t first, std::size_t n, std::size_t n_padded = 0) {
        const std::size_t in_row = first % per_row_;
        const std::size_t last_row = (first + n - 1) / per_row_;
        if (in_place_ && n_padded <= n && is_inside(last_row)) {
            const auto *row = static_cast<const std::byte *>(logits_.data) +
                              static_cast<std::ptrdiff_t>(first / per_row_) * logits_.row_stride;
            return {row + in_row * 8 * size_, in_row, per_row_,
                    stride_ - static_cast<std::ptrdiff_t>(8 * per_row_)};
        }
        for (std::size_t i = 0; i < n;) {
            const std::size_t row = (first + i) / per_row_, unit = (first + i) % per_row_;
            const std::size_t n_here = std::min(n - i, per_row_ - unit);
            gather(row, unit, n_here, buffer_ + i * 8 * size_);
            i += n_here;
        }
        if (n_padded > n)
            std::memset(buffer_ + n * 8 * size_, 0, (n_padded - n) * 8 * size_);
        return {buffer_, in_row, per_row_, 0};
    }

  private:
    // Whether a row's last unit, which may reach into the next row, ends within the matrix.
    bool is_inside(std::size_t row) const {
        return 8 * per_row_ <=
               (logits_.n - 1 - row) * static_cast<std::size_t>(stride_) + logits_.n_bits;
    }

    // Copies n units of one row; zeros fill up the last one.
    void gather(std::size_t row, std::size_t unit, std::size_t n, std::byte *to) const {
        const std::size_t n_values = std::min(8 * n, logits_.n_bits - 8 * unit);
        const std::byte *from = static_cast<const std::byte *>(logits_.data) +
                                static_cast<std::ptrdiff_t>(row) * logits_.row_stride +
                                static_cast<std::ptrdiff_t>(8 * unit) * logits_.bit_stride;
        if (logits_.bit_stride == static_cast<std::ptrdiff_t>(size_))
            std::memcpy(to, from, n_values * size_);
        else
            for (std::size_t i = 0; i < n_values; ++i, from += logits_.bit_stride)
                std::memcpy(to + i * size_, from, size_);
        std::memset(to + n_values * size_, 0, (8 * n - n_values) * size_);
    }

    const Logits &logits_;
    std::size_t size_, per_row_;
    std::ptrdiff_t stride_; // values
    bool in_place_;
    alignas(64) std::byte buffer_[kTileUnits * 8 * sizeof(double)];
};

double half_to_double(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value = exponent == 0    ? std::ldexp(mantissa, -24)
                   : exponent == 31 ? std::numeric_limits<double>::infinity()
                                    : std::ldexp(mantissa + 1024, exponent - 25);
    return bits >> 15 ? -value : value;
}

double logit_at(const Logits &logits, std::size_t row, std::size_t bit) {
    const std::byte *from = static_cast<const std::byte *>(logits.data) +
                            static_cast<std::ptrdiff_t>(row) * logits.row_stride +
                            static_cast<std::ptrdiff_t>(bit) * logits.bit_stride;
    if (logits.type == LogitType::float64) {
        double value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    if (logits.type == LogitType::float32) {
        float value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return logits.type == LogitType::float16 ? half_to_double(bits)
                                             : std::bit_cast<float>(std::uint32_t{bits} << 16);
}

class FirstBadRow {
  public:
    void search(const Logits &logits, std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row)
            for (std::size_t bit = 0; bit < logits.n_bits; ++bit)
                if (!std::isfinite(logit_at(logits, row, bit)))
                    return note(static_cast<std::int64_t>(row));
    }
    std::int64_t get() const {
        const std::int64_t row = row_;
        return row == std::numeric_limits<std::int64_t>::max() ? -1 : row;
    }

  private:
    void note(std::int64_t row) {
        std::int64_t seen = row_;
        while (row < seen && !row_.compare_exchange_weak(seen, row)) {
        }
    }

    std::atomic<std::int64_t> row_{std::numeric_limits<std::int64_t>::max()};
};

// Runs tile(first unit, n units, reader) over all logits, on threads; a tile
// that returns false may have logits that are not finite.
template <typename Tile>
std::int64_t for_each_tile(const Logits &logits, const Schedule &schedule, const Tile &tile) {
    const std::size_t per_row = units_per_row(logits), n_units = logits.n * per_row;
    const std::size_t tile_units = // whole rows, if they fit
        per_row <= kTileUnits ? kTileUnits / per_row * per_row : kTileUnits;
    const std::size_t task_units = kTaskTiles * tile_units;
    FirstBadRow bad;
    const auto task = [&](std::size_t index, const Check &) {
        Reader reader(logits);
        const std::size_t end = std::min(n_units, (index + 1) * task_units);
        for (std::size_t first = index * task_units; first < end; first += tile_units) {
            const std::size_t n = std::min(tile_units, end - first);
            if (!tile(first, n, reader))
                bad.search(logits, first / per_row, (first + n - 1) / per_row + 1);
        }
    };
    parallel_for((n_units + task_units - 1) / task_units, schedule.n_threads, task, schedule.poll);
    return bad.get();
}

// Clears the padding bits of the codes of `n` units from `first` on.
void clear_padding(const Logits &logits, std::size_t first, std::size_t n, std::uint8_t *codes) {
    const unsigned used = logits.n_bits % 8;
    if (used == 0)
        return;
    const std::size_t per_row = units_per_row(logits);
    for (std::size_t i = per_row - 1 - first % per_row; i < n; i += per_row)
        codes[i] &= static_cast<std::uint8_t>((1u << used) - 1);
}

// Decides the bits that `draw` was unsure of.
class Decider {
  public:
    Decider(const Logits &logits, std::uint64_t seed, std::uint64_t first_row)
        : logits_(logits), per_row_(units_per_row(logits)), seed_(seed), first_row_(first_row) {}

    void decide(std::size_t first, std::size_t n, std::uint32_t sample, const std::uint8_t *random,
                const std::uint8_t *unsure, std::uint8_t *codes) const {
        for (std::size_t i = 0; i < n; i += 8) {
            std::uint64_t any = 0;
            std::memcpy(&any, unsure + i, std::min<std::size_t>(8, n - i));
            if (any != 0)
                for (std::size_t unit = i; unit < std::min(i + 8, n); ++unit)
                    codes[unit] = decided(first + unit, sample, random + 16 * unit, unsure[unit],
                                          codes[unit]);
        }
    }

  private:
    std::uint8_t decided(std::size_t unit, std::uint32_t sample, const std::uint8_t *random,
                         unsigned unsure, unsigned code) const {
        const std::size_t row = unit / per_row_, first_bit = 8 * (unit % per_row_);
        for (; unsure != 0; unsure &= unsure - 1) {
            const auto place = static_cast<unsigned>(std::countr_zero(unsure));
            const std::size_t bit = first_bit + place;
            if (bit >= logits_.n_bits)
                break;
            std::int16_t half;
            std::memcpy(&half, random + 2 * place, sizeof half);
            const bool is_set =
                exact_bit(logit_at(logits_, row, bit), half,
                          {seed_, first_row_ + row, static_cast<std::uint32_t>(bit), sample});
            code = (code & ~(1u << place)) | unsigned{is_set} << place;
        }
        return static_cast<std::uint8_t>(code);
    }

    const Logits &logits_;
    std::size_t per_row_;
    std::uint64_t seed_, first_row_;
};

// The largest float that is not above `value`: x > value exactly if x > this.
float round_down(double value) {
    const auto nearest = static_cast<float>(value);
    return nearest > value ? std::nextafter(nearest, -std::numeric_limits<float>::infinity())
                           : nearest;
}

// How many units of a tile of n can write their relaxed bits in place. A row's last unit writes
// beyond the row, into bits that later units of the tile overwrite.
std::size_t relaxed_in_place(std::size_t n, std::size_t n_bits) {
    const std::size_t n_whole = n / kRelaxUnits * kRelaxUnits;
    return n_bits % 8 == 0 || n_whole == 0 ? n_whole : n_whole - kRelaxUnits;
}

} // namespace

std::int64_t sample(const Logits &logits, const Draw &draw, const Schedule &schedule,
                    std::uint8_t *codes) {
    const SamplingKernels &kernels = active_isa().sampling;
    const auto draw_units = kernels.draw[static_cast<std::size_t>(logits.type)];
    const std::size_t per_row = units_per_row(logits);
    const Decider decider(logits, draw.seed, draw.first_row);
    return for_each_tile(logits, schedule, [&](std::size_t first, std::size_t n, Reader &reader) {
        alignas(64) std::uint8_t random[(kTileUnits + kBlocksAtOnce) * 16], unsure[kTileUnits];
        const Units units = reader.units(first, n);
        bool is_finite = true;
        for (std::size_t number = 0; number < draw.n_samples; ++number) {
            std::uint8_t *out = codes + number * logits.n * per_row + first;
            const auto sample = static_cast<std::uint32_t>(number);
            const BlockRange range{draw.first_row + first / per_row,
                                   static_cast<std::uint32_t>(first % per_row),
                                   static_cast<std::uint32_t>(per_row),
                                   static_cast<std::uint32_t>(Stream::prefix),
                                   sample,
                                   draw.seed};
            kernels.random_blocks(range, n, random);
            is_finite &= draw_units(units, random, n, out, unsure);
            decider.decide(first, n, sample, random, unsure, out);
            clear_padding(logits, first, n, out);
        }
        return is_finite;
    });
}

std::int64_t binarize(const Logits &logits, const std::vector<double> &thresholds,
                      const Schedule &schedule, std::uint8_t *codes) {
    const auto kernel = active_isa().sampling.threshold[static_cast<std::size_t>(logits.type)];
    const std::size_t per_row = units_per_row(logits);
    std::vector<double> wide(thresholds);
    wide.resize(8 * per_row);
    std::vector<float> narrow(wide.size());
    std::transform(wide.begin(), wide.end(), narrow.begin(), round_down);
    const void *of_row = logits.type == LogitType::float64
                             ? static_cast<const void *>(wide.data())
                             : static_cast<const void *>(narrow.data());
    return for_each_tile(logits, schedule, [&](std::size_t first, std::size_t n, Reader &reader) {
        const bool is_finite = kernel(reader.units(first, n), of_row, n, codes + first);
        clear_padding(logits, first, n, codes + first);
        return is_finite;
    });
}

std::int64_t sample_relaxed(const Logits &logits, double tau, const Draw &draw,
                            const Schedule &schedule, float *relaxed) {
    const SamplingKernels &kernels = active_isa().sampling;
    const auto relax = kernels.relax[static_cast<std::size_t>(logits.type)];
    const auto logit_scale = static_cast<float>(-0x1.71547652b82fep+0 / tau); // log2(e)
    const auto noise_scale = static_cast<float>(-1.0 / tau);
    const std::size_t per_row = units_per_row(logits);
    return for_each_tile(logits, schedule, [&](std::size_t first, std::size_t n, Reader &reader) {
        alignas(64) std::uint8_t random[(kTileUnits + 2 * kRelaxUnits) * 32];
        const BlockRange range{draw.first_row + first / per_row,
                               static_cast<std::uint32_t>(2 * (first % per_row)),
                               static_cast<std::uint32_t>(2 * per_row),
                               static_cast<std::uint32_t>(Stream::relaxed),
                               0,
                               draw.seed};
        kernels.random_blocks(range, 2 * n, random);
        const std::size_t n_direct = relaxed_in_place(n, logits.n_bits);
        const auto at = [&](std::size_t unit) {
            return relaxed + unit / per_row * logits.n_bits + 8 * (unit % per_row);
        };
        bool is_finite = true;
        if (n_direct > 0) {
            const auto gap = static_cast<std::ptrdiff_t>(logits.n_bits) -
                             static_cast<std::ptrdiff_t>(8 * per_row);
            is_finite = relax(reader.units(first, n_direct), random, n_direct, logit_scale,
                              noise_scale, at(first), gap);
        }
        const std::size_t n_left = n - n_direct, n_padded = n_left ? 2 * kRelaxUnits : 0;
        std::memset(random + 32 * n, 0, 32 * (n_padded - n_left));
        alignas(64) float padded[2 * kRelaxUnits * 8];
        if (n_left > 0)
            is_finite &=
                relax(reader.units(first + n_direct, n_left, n_padded), random + 32 * n_direct,
                      n_padded, logit_scale, noise_scale, padded, 0);
        for (std::size_t i = 0; i < n_left; ++i) {
            const std::size_t unit = first + n_direct + i;
            std::copy_n(padded + 8 * i,
                        std::min<std::size_t>(8, logits.n_bits - 8 * (unit % per_row)), at(unit));
        }
        return is_finite;
    });
}

} // namespace ssbhash
