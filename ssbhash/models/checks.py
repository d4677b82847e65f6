"""Checks of what a user hands to an estimator; every error names the argument."""

from __future__ import annotations

import math
import numbers
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from ssbhash.arrays import as_count, is_torch
from ssbhash.inputs import BLOCK_ROWS, CsrShards
from ssbhash.training import distributed

_COUNTS = ("n_bits", "n_hidden_units", "batch_size", "n_components")
_WEIGHTS = (
    "alpha",
    "beta",
    "gamma",
    "contrast_weight",
)
_SHARES = ("validation_fraction", "dropout", "class_share")
_CHOICES = {
    "preset": ("default", "paper"),
    "monitor": ("val_loss", "val_accuracy"),
    "reconstruction": ("auto", "multinomial", "gaussian"),
    "precision": ("float32", "bfloat16"),
    "threshold": ("zero", "median"),
}


def check(hasher: Any) -> None:
    """Check every parameter of an estimator.

    Raises
    ------
    TypeError, ValueError
        If one has the wrong type, or is out of range.
    """
    for name in _COUNTS:
        if name != "batch_size" or hasher.batch_size is not None or not hasattr(hasher, "preset"):
            as_count(getattr(hasher, name, 1), name, 1)
    as_count(getattr(hasher, "n_labelled", 0), "n_labelled", 0)
    if hasher.n_epochs is not None or not hasattr(hasher, "preset"):
        as_count(hasher.n_epochs, "n_epochs", 1)
    if as_count(hasher.seed, "seed", 0) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {hasher.seed}")
    for name in _WEIGHTS:
        weight = getattr(hasher, name, 0)
        if weight is None:
            continue  # the preset's
        _check_real(weight, name)
        if name in ("alpha", "gamma") and getattr(hasher, "preset", "paper") == "default":
            raise ValueError(f"{name} needs preset='paper'; preset='default' has no such weight")
    for name in ("learning_rate", "temperature"):
        _check_real(getattr(hasher, name, 1), name, positive=True)
    for name, choices in _CHOICES.items():
        value = getattr(hasher, name, choices[0])
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    for name in _SHARES:
        share = getattr(hasher, name, 0)
        _check_real(share, name)
        if share >= 1:
            raise ValueError(f"{name} must be below 1, got {share}")
    if not isinstance(hasher.checkpoint, str | Path | None):
        raise TypeError(f"checkpoint must be a path, got {type(hasher.checkpoint).__name__}")
    if hasher.patience is not None:
        as_count(hasher.patience, "patience", 1)
        if not hasher.validation_fraction:
            raise ValueError("patience needs validation_fraction > 0, to monitor held-out items")


def _check_real(value: Any, name: str, positive: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        least = "positive" if positive else "at least 0"
        raise ValueError(f"{name} must be finite and {least}, got {value}")


def is_on_disk(items: Any) -> bool:
    """Whether a feature matrix stays on disk: memory-mapped, or CSR shards."""
    return isinstance(items, np.memmap | CsrShards)


def check_on_disk(items: Any, name: str) -> Any:
    """Check a feature matrix block by block; CSR shards were checked when opened."""
    if isinstance(items, CsrShards):
        return items
    check_array(items[:1], dtype=np.float32, input_name=name)
    for start in range(0, len(items), BLOCK_ROWS):
        if not np.isfinite(items[start : start + BLOCK_ROWS]).all():
            raise ValueError(f"{name} contains NaN or infinity, first in rows {start} and on")
    return items


def check_target(target: Any, n_items: int) -> Any:
    """Check a reconstruction target: float32 [n, n_targets], dense or CSR."""
    if is_on_disk(target):
        checked = check_on_disk(target, "target")
    else:
        array = target.detach().cpu().numpy() if is_torch(target) else target
        checked = check_array(array, accept_sparse="csr", dtype=np.float32, input_name="target")
    if checked.shape[0] != n_items:
        raise ValueError(f"target has {checked.shape[0]} rows, X has {n_items}")
    return checked


def resolve_reconstruction(name: str, target: Any) -> str:
    """Choose the likelihood by the target's sign, or check the choice.

    Raises
    ------
    ValueError
        If a multinomial target has a negative value.
    """
    lowest = min(float(target.min()), 0.0)
    if name == "multinomial" and lowest < 0:
        raise ValueError(
            "reconstruction='multinomial' needs non-negative features, such as counts, but the "
            f"smallest is {lowest:g}; use 'gaussian' or 'auto', or hand in a target"
        )
    if name == "auto":
        return "gaussian" if lowest < 0 else "multinomial"
    return name


def resolve_device(name: Any) -> str:
    """Give the torch device to use: CUDA for "auto" where present.

    Raises
    ------
    ValueError
        If `name` is no device, or not present.
    """
    if name == "auto":
        return distributed.default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not available: {reason}") from error
    return str(device)
