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
from ssbhash.backends.numba_threads import jit, run
from ssbhash.backends.reference_sampling import (
    EXP_COEFFICIENTS,
    FLOAT_EXP_COEFFICIENTS,
    FLOAT_LOG_COEFFICIENTS,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    PREFIX,
    RELAXED,
    TAIL,
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


_F_HALF, _F_ONE, _F_ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_F_SCALE, _F_ROUND, _F_LIMIT = np.float32(2.0**-23), np.float32(12582912), np.float32(86)
_F_LOG2_E = np.float32(1.44269504088896341)
_F_LN2_HIGH, _F_LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_F_LOG = tuple(np.float32(c) for c in FLOAT_LOG_COEFFICIENTS)
_F_EXP = tuple(np.float32(c) for c in FLOAT_EXP_COEFFICIENTS)


@jit
def _log(x: Any, as_int: Any, as_float: Any) -> Any:
    """Log of as_float[0], which as_int[0] views as an integer."""
    as_float[0] = x
    exponent = (as_int[0] - np.int32(0x3F3504F3)) >> np.int32(23)
    as_int[0] -= exponent << np.int32(23)
    e = np.float32(exponent)
    f = as_float[0] - _F_ONE
    series = _F_LOG[0] * f + _F_LOG[1]
    for i in range(2, len(_F_LOG)):
        series = series * f + _F_LOG[i]
    square = f * f
    series = series * f * square + e * _F_LN2_LOW
    series = series - _F_HALF * square
    return (f + series) + e * _F_LN2_HIGH


@jit
def _exp_of_minus(x: Any, as_int: Any, as_float: Any) -> Any:
    k = (x * _F_LOG2_E + _F_ROUND) - _F_ROUND
    r = (k * _F_LN2_HIGH - x) + k * _F_LN2_LOW
    series = _F_EXP[0] * r + _F_EXP[1]
    for i in range(2, len(_F_EXP)):
        series = series * r + _F_EXP[i]
    as_float[0] = (series * (r * r) + r) + _F_ONE
    as_int[0] -= np.int32(k) << np.int32(23)
    return as_float[0]


@jit
def _sample_relaxed(logits: Any, inverse_tau: Any, seed: Any, first_row: Any, relaxed: Any) -> None:
    as_float = np.empty(1, np.float32)
    as_int = as_float.view(np.int32)
    for i in range(logits.shape[0]):
        row = first_row + np.uint64(i)
        for block in range((logits.shape[1] + 3) // 4):
            words = _philox(seed, row, np.uint64(block) | _RELAXED, np.uint64(0))
            for place in range(min(4, logits.shape[1] - 4 * block)):
                bit = 4 * block + place
                u = (np.float32(words[place] >> np.uint64(9)) + _F_HALF) * _F_SCALE
                noise = _log(u / (_F_ONE - u), as_int, as_float)
                z = (np.float32(logits[i, bit]) + noise) * inverse_tau
                e = _exp_of_minus(min(abs(z), _F_LIMIT), as_int, as_float)
                relaxed[i, bit] = (e if z < _F_ZERO else _F_ONE) / (_F_ONE + e)


def sample(
    logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
) -> npt.NDArray[np.uint8]:
    """Draw codes uint8 [n_samples, n, n_bytes], bit ~ Bernoulli(sigmoid(logit))."""
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
    """Codes uint8 [n, n_bytes], bit = logit > threshold, compared exactly."""
    values = _prepared(logits)
    codes = np.empty((len(logits), -(-logits.shape[1] // 8)), dtype=np.uint8)
    _over_rows(logits, n_threads, lambda rows: _binarize(values[rows], thresholds, codes[rows]))
    return codes


def sample_relaxed(
    logits: Logits, inverse_tau: np.float32, seed: int, first_row: int, n_threads: int
) -> npt.NDArray[np.float32]:
    """Draw relaxed bits float32 [n, n_bits] from the binary Concrete distribution."""
    values = _prepared(logits)
    relaxed = np.empty(logits.shape, dtype=np.float32)

    def fill(rows: slice) -> None:
        first = np.uint64(first_row + rows.start)
        _sample_relaxed(values[rows], inverse_tau, np.uint64(seed), first, relaxed[rows])

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
