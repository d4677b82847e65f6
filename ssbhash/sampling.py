"""Codes from logits in one pass: drawn from the posterior, or thresholded.

A bit is 1 with probability sigmoid(logit). The random numbers are a function of (seed,
row, bit), by Philox4x32-10. So the same seed gives the same bits on every engine, with any
number of threads and any split of the rows. docs/sampling.md specifies every bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    Codes,
    Float32Array,
    Float64Array,
    as_count,
    as_logits,
    as_numpy,
    like,
    n_axes,
)
from ssbhash.engines import EngineOptions, get
from ssbhash.threads import resolve

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack


@overload
def sample(
    logits: Tensor,
    seed: int = ...,
    n_samples: int | None = ...,
    *,
    first_row: int = ...,
    **options: Unpack[EngineOptions],
) -> Tensor: ...
@overload
def sample(
    logits: ArrayIn,
    seed: int = ...,
    n_samples: int | None = ...,
    *,
    first_row: int = ...,
    **options: Unpack[EngineOptions],
) -> Codes: ...
def sample(
    logits: AnyArray,
    seed: int = 0,
    n_samples: int | None = None,
    *,
    first_row: int = 0,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Draw codes from the posterior: bit ~ Bernoulli(sigmoid(logit)), packed.

    Parameters
    ----------
    logits : float [n, n_bits] or [n_bits]
        Log-odds of each bit being 1: float16, bfloat16, float32 or float64, of any
        strides. At 100 or more in magnitude, a bit is certain.
    seed : int
        In [0, 2**64).
    n_samples : int, optional
        Codes to draw for each row; by default one, without that axis.
    first_row : int
        Number of the first row. Rows that are sampled in parts, each with the number of
        its first row, give the same codes as rows sampled together.
    backend : {"auto", "native", "numba", "reference", "cuda"}
        The engine; all give identical codes.
    n_threads : int, optional
        Threads at most; by default all that the process may use.

    Returns
    -------
    uint8 [n, n_bytes] or [n_samples, n, n_bytes], without n for a single row
        Packed codes. torch logits give a torch tensor on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range, or a logit is NaN or
        infinite; the message names the first such row.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> ssbhash.sample(np.array([[100.0, -100.0, 100.0]])).tolist()
    [[5]]
    >>> logits = np.zeros((1000, 64), dtype=np.float32)
    >>> round(float(ssbhash.unpack(ssbhash.sample(logits, seed=1), 64).mean()), 2)
    0.5
    """
    engine = get(backend, logits)
    values = as_logits(logits, tensors=engine.NAME == "cuda")
    first_row = _first_row(first_row, len(values))
    count = 1 if n_samples is None else as_count(n_samples, "n_samples", 1)
    if count > 2**32:
        raise ValueError(f"n_samples must be at most 2**32, got {count}")
    codes = engine.sample(values, _seed(seed), first_row, count, resolve(n_threads))
    if n_axes(logits) == 1:
        codes = codes[:, 0]
    return like(codes[0] if n_samples is None else codes, logits)


@overload
def binarize(
    logits: Tensor, threshold: float | AnyArray = ..., **options: Unpack[EngineOptions]
) -> Tensor: ...
@overload
def binarize(
    logits: ArrayIn, threshold: float | AnyArray = ..., **options: Unpack[EngineOptions]
) -> Codes: ...
def binarize(
    logits: AnyArray,
    threshold: float | AnyArray = 0.0,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Threshold logits into packed codes: bit = logit > threshold.

    Parameters
    ----------
    logits : float [n, n_bits] or [n_bits]
        float16, bfloat16, float32 or float64, of any strides.
    threshold : float or float [n_bits]
        One for all bits, or one for each. The medians of the columns give balanced bits
        ("median hashing"). Thresholds are compared exactly, not rounded to the logits'
        dtype.
    backend : {"auto", "native", "numba", "reference", "cuda"}
        The engine; all give identical codes.
    n_threads : int, optional
        Threads at most; by default all that the process may use.

    Returns
    -------
    uint8 [n, n_bytes] or [n_bytes]
        Packed codes. torch logits give a torch tensor on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape, or a value is NaN or infinite;
        the message names the first such row.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> logits = np.array([[0.3, -1.0, 0.0], [2.0, 1.0, -0.5]])
    >>> ssbhash.binarize(logits).tolist()
    [[1], [3]]
    >>> ssbhash.binarize(logits, np.median(logits, axis=0)).tolist()
    [[4], [3]]
    """
    engine = get(backend, logits)
    values = as_logits(logits, tensors=engine.NAME == "cuda")
    thresholds = _thresholds(threshold, values.shape[1])
    codes = engine.binarize(values, thresholds, resolve(n_threads))
    return like(codes[0] if n_axes(logits) == 1 else codes, logits)


@overload
def sample_relaxed(
    logits: Tensor,
    seed: int = ...,
    *,
    tau: float = ...,
    first_row: int = ...,
    **options: Unpack[EngineOptions],
) -> Tensor: ...
@overload
def sample_relaxed(
    logits: ArrayIn,
    seed: int = ...,
    *,
    tau: float = ...,
    first_row: int = ...,
    **options: Unpack[EngineOptions],
) -> Float32Array: ...
def sample_relaxed(
    logits: AnyArray,
    seed: int = 0,
    *,
    tau: float = 2 / 3,
    first_row: int = 0,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Draw relaxed bits from the binary Concrete distribution.

    A relaxed bit is sigmoid((logit + log u - log(1 - u)) / tau), with u uniform in (0, 1).
    It is near 0 or 1 if tau is small. It is above 1/2 with probability sigmoid(logit).
    Maddison, Mnih & Teh, *The Concrete Distribution*, ICLR 2017.

    Parameters
    ----------
    logits : float [n, n_bits] or [n_bits]
        float16, bfloat16, float32 or float64, of any strides.
    seed : int
        In [0, 2**64). The draw is independent of that of `sample`.
    tau : float
        Temperature, at least 1e-3.
    first_row, backend, n_threads
        As in `sample`.

    Returns
    -------
    float32, the shape of `logits`
        Computed in float32, the same to the last bit on every engine. torch logits
        give a torch tensor on their device, without a gradient: training uses
        `ssbhash.nn.relaxations.relax`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range, or a logit is NaN or
        infinite; the message names the first such row.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> relaxed = ssbhash.sample_relaxed(np.zeros((2, 3)), seed=1, tau=0.1)
    >>> relaxed.shape, relaxed.dtype.name
    ((2, 3), 'float32')
    """
    engine = get(backend, logits)
    values = as_logits(logits, tensors=engine.NAME == "cuda")
    if not 1e-3 <= float(tau) < np.inf:
        raise ValueError(f"tau must be finite and at least 1e-3, got {tau}")
    first_row = _first_row(first_row, len(values))
    relaxed = engine.sample_relaxed(values, float(tau), _seed(seed), first_row, resolve(n_threads))
    return like(relaxed[0] if n_axes(logits) == 1 else relaxed, logits)


def _thresholds(threshold: float | AnyArray, n_bits: int) -> Float64Array:
    if isinstance(threshold, float | int) and math.isfinite(threshold):
        return np.full(n_bits, threshold, dtype=np.float64)
    thresholds = as_numpy(threshold, "threshold").astype(np.float64)
    if thresholds.shape not in ((), (n_bits,)):
        raise ValueError(
            f"threshold must be a number or have shape [{n_bits}], got {thresholds.shape}"
        )
    if not np.isfinite(thresholds).all():
        raise ValueError("threshold must be finite")
    return np.ascontiguousarray(np.broadcast_to(thresholds, (n_bits,)))


def _first_row(first_row: int, n: int) -> int:
    number = as_count(first_row, "first_row", 0)
    if number + n > 2**64:
        raise ValueError(f"first_row must leave row numbers below 2**64, got {first_row}")
    return number


def _seed(seed: int) -> int:
    number = as_count(seed, "seed", 0)
    if number >= 2**64:
        raise ValueError(f"seed must be below 2**64, got {number}")
    return number
