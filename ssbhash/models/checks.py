"""Checks of what a user hands to an estimator; every error names the argument."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.utils import check_array

from ssbhash.arrays import as_count
from ssbhash.inputs import (
    BLOCK_ROWS,
    CsrShards,
    as_float32,
    as_matrix,
    canonical,
    is_on_disk,
)
from ssbhash.training import distributed

_COUNTS = ("n_bits", "n_hidden_units", "n_epochs", "batch_size", "n_lsa_components")
# A method that has presets chooses these where they are None.
_MAY_BE_NONE = ("n_epochs", "batch_size", "learning_rate", "alpha", "gamma", "n_lsa_components")
_WEIGHTS = (
    "alpha",
    "beta",
    "gamma",
    "class_scale",
    "contrast_weight",
)
_SHARES = ("validation_fraction", "dropout")
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
        If a parameter has the wrong type, or is out of range.
    """
    for name in _COUNTS:
        if not _is_left_out(hasher, name):
            as_count(getattr(hasher, name, 1), name, 1)
    as_count(getattr(hasher, "n_labelled", 0), "n_labelled", 0)
    if as_count(hasher.seed, "seed", 0) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {hasher.seed}")
    for name in _WEIGHTS:
        if not _is_left_out(hasher, name):
            _check_real(getattr(hasher, name, 0), name)
    for name in ("learning_rate", "temperature"):
        if not _is_left_out(hasher, name):
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
    if not callable(hasher.encoder) and hasher.encoder is not None:
        raise TypeError(
            "encoder must be a function of n_features and n_hidden_units that returns a "
            f"torch.nn.Module, got {type(hasher.encoder).__name__}"
        )
    if isinstance(hasher.encoder, torch.nn.Module):
        raise TypeError(
            "encoder must be a function that makes a module, not a module: each fit makes a new "
            "one. Give its class, or lambda n_features, n_hidden_units: ..."
        )
    if hasher.patience is not None:
        as_count(hasher.patience, "patience", 1)
    if not hasher.validation_fraction:
        # Nothing is held out, so that these would have no effect.
        for name, default in (("patience", None), ("monitor", "val_loss")):
            if getattr(hasher, name) != default:
                raise ValueError(f"{name} needs validation_fraction > 0, to monitor held-out items")


def _is_left_out(hasher: Any, name: str) -> bool:
    return name in _MAY_BE_NONE and hasattr(hasher, "preset") and getattr(hasher, name) is None


def _check_real(value: Any, name: str, positive: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        least = "positive" if positive else "at least 0"
        raise ValueError(f"{name} must be finite and {least}, got {value}")


def check_on_disk(matrix: Any, name: str) -> Any:
    """Check block by block that all values are finite as float32.

    CSR shards were checked when they were opened.

    Raises
    ------
    ValueError
        If a value is NaN, infinite, or too large.
    """
    if isinstance(matrix, CsrShards):
        return matrix
    for start in range(0, len(matrix), BLOCK_ROWS):
        is_finite = np.isfinite(as_float32(matrix[start : start + BLOCK_ROWS]))
        if not is_finite.all():
            row = start + int(np.flatnonzero(~is_finite.all(axis=1))[0])
            raise ValueError(
                f"{name} contains NaN, infinity or a value too large for float32 in row {row}"
            )
    return matrix


def check_matrix(matrix: Any, name: str, check: Callable[..., Any]) -> Any:
    """Check a matrix by scikit-learn's `check`: float32 [n, n_columns], dense or canonical CSR.

    A matrix on disk is checked block by block; `check` sees its first row.

    Raises
    ------
    TypeError, ValueError
        If `matrix` is no matrix of finite numbers.
    """
    matrix = as_matrix(matrix, name)
    options = {"accept_sparse": "csr", "dtype": np.float32, "order": "C"}
    with np.errstate(over="ignore", under="ignore"):  # infinities are refused
        if is_on_disk(matrix):
            check(matrix[:1], **options)
            return check_on_disk(matrix, name)
        checked = check(matrix, **options)
    return canonical(checked, name) if scipy.sparse.issparse(checked) else checked


def check_target(target: Any, n_items: int) -> Any:
    """Check a reconstruction target: float32 [n, n_targets], dense or CSR."""
    checked = check_matrix(target, "target", partial(check_array, input_name="target"))
    if checked.shape[0] != n_items:
        raise ValueError(f"target has {checked.shape[0]} rows, X has {n_items}")
    return checked


def check_trained(network: torch.nn.Module, x: Any) -> None:
    """Refuse a network whose weights are no longer finite.

    Raises
    ------
    RuntimeError
        If a weight is NaN or infinite; the message has the largest feature in `x`.
    """
    tensors = network.state_dict().values()
    if all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point()):
        return
    largest = "" if isinstance(x, CsrShards) else f" (up to {float(abs(x).max()):.3g} here)"
    raise RuntimeError(
        f"the weights became NaN or infinite: scale the features{largest}, drop columns that are "
        "no measurement, or lower learning_rate, alpha or gamma"
    )


def resolve_reconstruction(name: str, target: Any) -> str:
    """Choose the likelihood by the target's sign, or check a choice.

    Raises
    ------
    ValueError
        If a multinomial target has a negative value.
    """
    lowest = min(float(np.float32(target.min())), 0.0)
    if name == "multinomial" and lowest < 0:
        raise ValueError(
            "reconstruction='multinomial' needs non-negative features, such as counts, but the "
            f"smallest is {lowest:g}; use 'gaussian' or 'auto', or hand in a target"
        )
    if name == "auto":
        return "gaussian" if lowest < 0 else "multinomial"
    return name


def resolve_device(name: Any) -> str:
    """Choose the torch device; "auto" is CUDA if present, else the CPU.

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
