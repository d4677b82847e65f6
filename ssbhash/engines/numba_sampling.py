"""Sampling by the numba engine: docs/sampling.md as plain loops.

Never `fastmath`: a reordered or fused operation would change bits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Logits, require_finite
from ssbhash.engines.numba_threads import jit, run
from ssbhash.engines.reference_sampling import (
    EXP_COEFFICIENTS,
    FLOAT_EXP2,
    FLOAT_LOG2,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    PREFIX,
    RELAXED,
    TAIL,
    relaxed_scales,
)

_MIN_SLICE = 1 << 15  # logits below which a second thread costs more than it saves
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_PREFIX, _TAIL, _RELAXED = np.uint64(PREFIX), np.uint64(TAIL), np.uint64(RELAXED)
_TWO_64 = 2.0**64


@jit
def _philox(seed: Any, row: Any, third: Any, sample: Any) -> Any:
    c0, c1, c2, c3 = row & _MASK, row >> _SHIFT, third, sample
    k0, k1 = seed & _MASK, seed >> _SHIFT
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ k0,
            p1 & _MASK,
            (p0 >> _SHIFT) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@jit
def _flip_probability(magnitude: float) -> float:
    if magnitude >= 100.0:
        return 0.0
    k = np.floor(magnitude * LOG2_E + 0.5)
    r = (k * LN2_HIGH - magnitude) + k * LN2_LOW
    series = EXP_COEFFICIENTS[0]
    for i in range(1, len(EXP_COEFFICIENTS)):
        series = series * r + EXP_COEFFICIENTS[i]
    exponential = math.ldexp(series, -int(k))  # exact
    return exponential / (1.0 + exponential)


@jit
def _tail_below(rest: float, complement: bool, seed: Any, row: Any, bit: int, sample: Any) -> Any:
    w0, w1, w2, w3 = _philox(seed, row, np.uint64(bit) | _TAIL, sample)
    high = w0 << _SHIFT | w1
    low = w2 << _SHIFT | w3
    if complement:
        high = ~high
        low = ~low
    scaled = rest * _TWO_64
    rest_high = np.uint64(scaled)
    rest_low = np.uint64((scaled - np.floor(scaled)) * _TWO_64)
    return high < rest_high or (high == rest_high and low < rest_low)


@jit
def _sample(logits: Any, seed: Any, first_row: Any, sample: Any, codes: Any) -> None:
    for i in range(logits.shape[0]):
        row = first_row + np.uint64(i)
        for group in range(codes.shape[1]):
            w0, w1, w2, w3 = _philox(seed, row, np.uint64(group) | _PREFIX, sample)
            high, low = w3 << _SHIFT | w2, w1 << _SHIFT | w0
            byte = 0
            for place in range(min(8, logits.shape[1] - 8 * group)):
                word = low if place < 4 else high
                half = np.int64(word >> np.uint64(16 * (place % 4)) & np.uint64(0xFFFF)) ^ 0x8000
                logit = np.float64(logits[i, 8 * group + place])
                is_positive = logit > 0
                if is_positive:
                    half = 65535 - half
                scaled = _flip_probability(abs(logit)) * 65536.0
                threshold = np.floor(scaled)
                flip = half < threshold
                if half == threshold:
                    flip = _tail_below(
                        scaled - threshold, is_positive, seed, row, 8 * group + place, sample
                    )
                byte |= (flip != is_positive) << place
            codes[i, group] = byte


@jit
def _binarize(logits: Any, thresholds: Any, codes: Any) -> None:
    for i in range(logits.shape[0]):
        for group in range(codes.shape[1]):
            byte = 0
            for place in range(min(8, logits.shape[1] - 8 * group)):
                bit = 8 * group + place
                byte |= (np.float64(logits[i, bit]) > thresholds[bit]) << place
            codes[i, group] = byte


_HALF, _ONE, _LIMIT = np.float32(0.5), np.float32(1), np.float32(120)
_TWO_23, _ROUND = np.float32(2**23), np.float32(1.5 * 2**23)


@jit
def _log2_odds(word: Any, as_int: Any, as_float: Any) -> Any:
    """Compute log2(u / (1 - u)) for u = (word >> 9 + 1/2) / 2**23; as_int views as_float."""
    u = np.float32(word >> np.uint64(9)) + _HALF
    as_float[0] = u / (_TWO_23 - u)
    power = (as_int[0] - np.int32(0x3F3504F3)) >> np.int32(23)
    as_int[0] -= power << np.int32(23)
    fraction = as_float[0] - _ONE
    series = FLOAT_LOG2[0]
    for i in range(1, len(FLOAT_LOG2)):
        series = series * fraction + FLOAT_LOG2[i]
    return fraction * series + np.float32(power)


@jit
def _sigmoid_of_minus(t: Any, as_int: Any, as_float: Any) -> Any:
    """Compute 1 / (1 + 2**t)."""
    x = max(-_LIMIT, min(_LIMIT, t))
    nearest = (x + _ROUND) - _ROUND
    rest = x - nearest
    series = FLOAT_EXP2[0]
    for i in range(1, len(FLOAT_EXP2)):
        series = series * rest + FLOAT_EXP2[i]
    as_float[0] = series
    as_int[0] += np.int32(nearest) << np.int32(23)
    return _ONE / (_ONE + as_float[0])


@jit
def _relax(logits: Any, scales: Any, seed: Any, first_row: Any, relaxed: Any) -> None:
    as_float = np.empty(1, np.float32)
    as_int = as_float.view(np.int32)
    for i in range(logits.shape[0]):
        row = first_row + np.uint64(i)
        for block in range((logits.shape[1] + 3) // 4):
            words = _philox(seed, row, np.uint64(block) | _RELAXED, np.uint64(0))
            for place in range(min(4, logits.shape[1] - 4 * block)):
                bit = 4 * block + place
                noise = _log2_odds(words[place], as_int, as_float)
                t = np.float32(logits[i, bit]) * scales[0] + noise * scales[1]
                relaxed[i, bit] = _sigmoid_of_minus(t, as_int, as_float)


def sample(
    logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
) -> npt.NDArray[np.uint8]:
    values = _prepared(logits)
    n, n_bits = logits.shape
    codes = np.empty((n_samples, n, -(-n_bits // 8)), dtype=np.uint8)
    for number in range(n_samples):

        def fill(rows: slice, number: int = number) -> None:
            _sample(
                values[rows],
                np.uint64(seed),
                np.uint64(first_row + rows.start),
                np.uint64(number),
                codes[number, rows],
            )

        _over_rows(logits, n_threads, fill)
    return codes


def binarize(logits: Logits, thresholds: npt.NDArray[np.float64], n_threads: int) -> Codes:
    values = _prepared(logits)
    codes = np.empty((len(logits), -(-logits.shape[1] // 8)), dtype=np.uint8)
    _over_rows(logits, n_threads, lambda rows: _binarize(values[rows], thresholds, codes[rows]))
    return codes


def sample_relaxed(
    logits: Logits, tau: float, seed: int, first_row: int, n_threads: int
) -> npt.NDArray[np.float32]:
    values = _prepared(logits)
    relaxed = np.empty(logits.shape, dtype=np.float32)
    scales = relaxed_scales(tau)

    def fill(rows: slice) -> None:
        first = np.uint64(first_row + rows.start)
        _relax(values[rows], scales, np.uint64(seed), first, relaxed[rows])

    _over_rows(logits, n_threads, fill)
    return relaxed


def _prepared(logits: Logits) -> Logits:
    """Check, and widen to float32 the types that numba does not have."""
    require_finite(logits)
    if logits.dtype == np.uint16:
        wide: Logits = (logits.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return wide
    return logits.astype(np.float32) if logits.dtype == np.float16 else logits


def _over_rows(logits: Logits, n_threads: int, fill: Callable[[slice], None]) -> None:
    n, n_bits = logits.shape
    n_slices = max(1, min(n_threads, n * n_bits // _MIN_SLICE))
    edges = [n * i // n_slices for i in range(n_slices + 1)]
    rows = [slice(*pair) for pair in itertools.pairwise(edges)]
    run([functools.partial(fill, part) for part in rows], n_threads)
