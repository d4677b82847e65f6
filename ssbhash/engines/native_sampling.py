"""Sampling by the native engine: csrc/core/sampling/sampling.cpp."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ssbhash import _core
from ssbhash.arrays import Codes, Logits, NotFiniteError

_T = TypeVar("_T", bound=np.generic)


def sample(
    logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
) -> npt.NDArray[np.uint8]:
    draw = _core.Draw(seed=seed, first_row=first_row, n_samples=n_samples)
    return _checked(*_core.sample(logits, draw, n_threads=n_threads))


def binarize(logits: Logits, thresholds: npt.NDArray[np.float64], n_threads: int) -> Codes:
    return _checked(*_core.binarize(logits, thresholds, n_threads=n_threads))


def sample_relaxed(
    logits: Logits, tau: float, seed: int, first_row: int, n_threads: int
) -> npt.NDArray[np.float32]:
    draw = _core.Draw(seed=seed, first_row=first_row)
    return _checked(*_core.sample_relaxed(logits, draw, tau=tau, n_threads=n_threads))


def _checked(result: npt.NDArray[_T], bad_row: int) -> npt.NDArray[_T]:
    if bad_row >= 0:
        raise NotFiniteError(bad_row)
    return result
