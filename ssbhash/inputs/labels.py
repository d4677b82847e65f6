"""Labels as users hand them in: class ids or an indicator matrix, -1 where hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ssbhash.arrays import is_torch

HIDDEN = -1


@dataclass(frozen=True)
class Labels:
    """Labels of training items.

    Parameters
    ----------
    numbers
        Index into `classes`, int64 [n], -1 where hidden; multi-label: float32
        [n, n_classes] of 0 and 1, rows of -1 where hidden.
    classes
        The class ids in order; multi-label: column numbers.
    """

    numbers: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    @property
    def multilabel(self) -> bool:
        """Whether an item may have several classes."""
        return self.numbers.ndim == 2

    def to_json(self) -> dict[str, Any]:
        """Give what a saved model keeps: the classes, not the training labels."""
        dtype = "object" if self.classes.dtype == object else self.classes.dtype.str
        return {"dtype": dtype, "classes": self.classes.tolist(), "multilabel": self.multilabel}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Labels:
        """Restore what `to_json` gave, without items."""
        classes = np.array(saved["classes"], dtype=saved["dtype"])
        shape = (0, len(classes)) if saved["multilabel"] else (0,)
        return cls(np.zeros(shape, np.int64), classes)


def read_labels(y: Any, n_items: int, method: str) -> Labels:
    """Check labels and number the classes.

    Raises
    ------
    ValueError
        If y is missing, has another length than X, holds anything but class ids (or 0,
        1 and rows of -1), hides every label, or knows fewer than two classes.
    """
    if y is None:
        raise ValueError(
            f"{method} requires y to be passed, but the target y is None: class ids, -1 where "
            "unlabelled. BernoulliVAE and VDSH learn without labels"
        )
    array = y.detach().cpu().numpy() if is_torch(y) else np.asarray(y)
    if array.ndim not in (1, 2):
        raise ValueError(f"y must have one or two dimensions, got shape {array.shape}")
    if array.shape[0] != n_items:
        raise ValueError(f"y has {array.shape[0]} rows, X has {n_items}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("y contains NaN or infinity; mark an unlabelled item by -1")
    labels = _indicator(array) if array.ndim == 2 and array.shape[1] > 1 else _class_ids(array)
    hidden = labels.numbers < 0
    if hidden.all():
        raise ValueError(
            f"{method} needs labels, but all {n_items} labels in y are hidden (-1); "
            "BernoulliVAE and VDSH learn without labels"
        )
    if len(labels.classes) < 2:
        raise ValueError(
            f"y knows one class only ({labels.classes[0]!r}); {method} needs at least two classes"
        )
    return labels


def _class_ids(array: npt.NDArray[Any]) -> Labels:
    ids = column_or_1d(array, warn=True)
    check_classification_targets(ids)
    hidden = ids == HIDDEN if ids.dtype.kind in "if" else np.zeros(len(ids), bool)
    numbers = np.full(len(ids), HIDDEN, np.int64)
    classes, numbers[~hidden] = np.unique(ids[~hidden], return_inverse=True)
    return Labels(numbers, classes)


def _indicator(array: npt.NDArray[Any]) -> Labels:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"an indicator matrix y must be numeric, got dtype {array.dtype}")
    hidden = (array == HIDDEN).all(1) if array.dtype.kind in "if" else np.zeros(len(array), bool)
    bad = ~((array == 0) | (array == 1)).all(1) & ~hidden
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            "an indicator matrix y must hold 0 and 1, or -1 in a whole row that is "
            f"unlabelled; row {row} is {array[row].tolist()}"
        )
    return Labels(array.astype(np.float32), np.arange(array.shape[1]))
