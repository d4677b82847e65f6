"""Sampling by the native engine: csrc/core/sampling/sampling.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Logits, NotFiniteError
from ssbhash.engines import native_module

_native: Any = native_module()


def sample(
    logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
) -> npt.NDArray[np.uint8]:
    """Draw codes uint8 [n_samples, n, n_bytes], bit ~ Bernoulli(sigmoid(logit))."""
    return _checked(*_native.sample(logits, seed, first_row, n_samples, n_threads))


def binarize(logits: Logits, thresholds: npt.NDArray[np.float64], n_threads: int) -> Codes:
    """Codes uint8 [n, n_bytes], bit = logit > threshold, compared exactly."""
    return _checked(*_native.binarize(logits, thresholds, n_threads))


def sample_relaxed(
    logits: Logits, tau: float, seed: int, first_row: int, n_threads: int
) -> npt.NDArray[np.float32]:
    """Draw relaxed bits float32 [n, n_bits] from the binary Concrete distribution."""
    return _checked(*_native.sample_relaxed(logits, tau, seed, first_row, n_threads))


def _checked(result: npt.NDArray[Any], bad_row: int) -> npt.NDArray[Any]:
    if bad_row >= 0:
        raise NotFiniteError(bad_row)
    return result
