"""Sampling by the reference engine: docs/sampling.md in numpy, statement by statement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    BoolArray,
    Codes,
    Float32Array,
    Float64Array,
    Logits,
    require_finite,
    widen,
)

UInt64 = npt.NDArray[np.uint64]

# Kinds of Philox blocks: the two highest bits of the third counter word.
PREFIX, TAIL, RELAXED = 0 << 30, 1 << 30, 2 << 30

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # k * LN2_HIGH is exact for k < 2**20
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
EXP_COEFFICIENTS = tuple(1 / math.factorial(n) for n in range(13, -1, -1))


def _floats(text: str) -> tuple[np.float32, ...]:
    return tuple(np.float32(float.fromhex(word)) for word in text.split())


# float32, highest power first: log2(1 + f) / f for f in [sqrt(1/2) - 1, sqrt(2) - 1],
# and 2**r for r in [-1/2, 1/2], by least maximal error.
FLOAT_LOG2 = _floats(
    "-0x1.2a791p-3 0x1.e525bap-3 -0x1.001262p-2 0x1.2596bap-2 "
    "-0x1.70babp-2 0x1.ec7b62p-2 -0x1.7155bap-1 0x1.715472p+0"
)
FLOAT_EXP2 = _floats(
    "0x1.5c08c4p-10 0x1.3d0c54p-7 0x1.c6b6e6p-5 0x1.ebf918p-3 0x1.62e428p-1 0x1.000002p+0"
)

_ELEMENTS_AT_ONCE = 1 << 16  # keeps the temporary arrays in cache
_MASK32 = np.uint64(0xFFFFFFFF)


def philox(seed: int, row: UInt64, third: UInt64, sample: int) -> UInt64:
    """Compute the words [..., 4] of block (row, third, sample) by Philox4x32-10."""
    shape = np.broadcast_shapes(row.shape, third.shape)
    c0, c1 = np.broadcast_to(row & _MASK32, shape), np.broadcast_to(row >> np.uint64(32), shape)
    c2, c3 = np.broadcast_to(third, shape), np.full(shape, sample, np.uint64)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & _MASK32
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & _MASK32
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def flip_probability(magnitude: Float64Array) -> Float64Array:
    """Compute sigmoid(-magnitude) for magnitude >= 0 as specified; 0 from 100 on."""
    clipped = np.minimum(magnitude, 100.0)
    k = np.floor(clipped * LOG2_E + 0.5)
    r = (k * LN2_HIGH - clipped) + k * LN2_LOW
    series = np.full_like(r, EXP_COEFFICIENTS[0])
    for coefficient in EXP_COEFFICIENTS[1:]:
        series = series * r + coefficient
    exponential = np.ldexp(series, -k.astype(np.int32))  # exact
    return np.where(magnitude < 100.0, exponential / (1.0 + exponential), 0.0)


def _row_blocks(logits: Logits) -> Iterator[slice]:
    n, n_bits = logits.shape
    step = max(1, _ELEMENTS_AT_ONCE // n_bits)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _row_numbers(rows: slice, first_row: int) -> UInt64:
    start = np.array(first_row + rows.start, dtype=np.uint64)
    return start + np.arange(rows.stop - rows.start, dtype=np.uint64)


def sample(
    logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
) -> npt.NDArray[np.uint8]:
    n, n_bits = logits.shape
    codes = np.empty((n_samples, n, -(-n_bits // 8)), dtype=np.uint8)
    require_finite(logits)
    for rows in _row_blocks(logits):
        values = widen(logits[rows])
        numbers = _row_numbers(rows, first_row)
        for number in range(n_samples):
            bits = _draw(values, numbers, seed, number)
            codes[number, rows] = np.packbits(bits, axis=1, bitorder="little")
    return codes


def _draw(values: Float64Array, row: UInt64, seed: int, sample: int) -> BoolArray:
    n_bits = values.shape[1]
    group = np.arange(-(-n_bits // 8), dtype=np.uint64)
    words = philox(seed, row[:, None], group + np.uint64(PREFIX), sample)
    halves = words.astype("<u4").view("<u2").reshape(len(values), -1)[:, :n_bits]
    is_positive = values > 0
    prefix = (halves ^ np.uint16(0x8000)) ^ np.where(is_positive, np.uint16(0xFFFF), np.uint16(0))
    scaled = flip_probability(np.abs(values)) * 65536.0
    threshold = np.floor(scaled)
    flip = prefix < threshold
    tied = np.nonzero(prefix == threshold)
    rest = (scaled - threshold)[tied]
    flip[tied] = _tail_below(rest, row[tied[0]], tied[1], is_positive[tied], seed, sample)
    bits: BoolArray = flip ^ is_positive
    return bits


def _tail_below(
    rest: Float64Array, row: UInt64, bit: Any, complement: Any, seed: int, sample: int
) -> BoolArray:
    """Whether a uniform number of 128 bits is below `rest` in [0, 1)."""
    words = philox(seed, row, bit.astype(np.uint64) + np.uint64(TAIL), sample)
    words = words ^ np.where(complement, _MASK32, np.uint64(0))[:, None]
    high = words[:, 0] << np.uint64(32) | words[:, 1]
    low = words[:, 2] << np.uint64(32) | words[:, 3]
    scaled = rest * 2.0**64
    rest_high = scaled.astype(np.uint64)
    rest_low = ((scaled - np.floor(scaled)) * 2.0**64).astype(np.uint64)
    below: BoolArray = (high < rest_high) | ((high == rest_high) & (low < rest_low))
    return below


def binarize(logits: Logits, thresholds: Float64Array, n_threads: int) -> Codes:
    n, n_bits = logits.shape
    codes = np.empty((n, -(-n_bits // 8)), dtype=np.uint8)
    require_finite(logits)
    for rows in _row_blocks(logits):
        bits = widen(logits[rows]) > thresholds
        codes[rows] = np.packbits(bits, axis=1, bitorder="little")
    return codes


def relaxed_scales(tau: float) -> tuple[np.float32, np.float32]:
    """Return the factors of the logit and of the noise, in units of log2."""
    return np.float32(-LOG2_E / tau), np.float32(-1.0 / tau)


def _log2_odds(words: UInt64) -> Float32Array:
    """Compute log2(u / (1 - u)) for u = (word >> 9 + 1/2) / 2**23."""
    u = (words >> np.uint64(9)).astype(np.float32) + np.float32(0.5)
    bits = (u / (np.float32(8388608) - u)).view(np.int32)
    power = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    fraction = (bits - (power << np.int32(23))).view(np.float32) - np.float32(1)
    odds: Float32Array = fraction * _horner(FLOAT_LOG2, fraction) + power.astype(np.float32)
    return odds


def _sigmoid_of_minus(t: Float32Array) -> Float32Array:
    """Compute 1 / (1 + 2**t)."""
    x = np.clip(t, np.float32(-120), np.float32(120))
    nearest = np.rint(x)
    bits = _horner(FLOAT_EXP2, x - nearest).view(np.int32)
    exponential = (bits + (nearest.astype(np.int32) << np.int32(23))).view(np.float32)
    result: Float32Array = np.float32(1) / (np.float32(1) + exponential)
    return result


def _horner(coefficients: tuple[np.float32, ...], x: Float32Array) -> Float32Array:
    series = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        series = series * x + coefficient
    return series


def sample_relaxed(
    logits: Logits, tau: float, seed: int, first_row: int, n_threads: int
) -> Float32Array:
    require_finite(logits)
    logit_scale, noise_scale = relaxed_scales(tau)
    n_bits = logits.shape[1]
    blocks = np.arange(-(-n_bits // 4), dtype=np.uint64) + np.uint64(RELAXED)
    relaxed = np.empty(logits.shape, dtype=np.float32)
    for rows in _row_blocks(logits):
        words = philox(seed, _row_numbers(rows, first_row)[:, None], blocks, 0)
        noise = _log2_odds(words.reshape(rows.stop - rows.start, -1)[:, :n_bits])
        with np.errstate(over="ignore"):  # a float64 logit, or the product: infinite is as good
            values = widen(logits[rows]).astype(np.float32)
            relaxed[rows] = _sigmoid_of_minus(values * logit_scale + noise * noise_scale)
    return relaxed
