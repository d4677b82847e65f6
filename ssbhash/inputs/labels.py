"""Labels of training items: class numbers or an indicator matrix, -1 where hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import column_or_1d

from ssbhash.arrays import Float32Array, Ids
from ssbhash.data import is_labelled, number_labels


@dataclass(frozen=True)
class ClassLabels:
    """Labels of training items.

    Parameters
    ----------
    numbers
        Index into `classes`, int64 [n], -1 where hidden; multi-label: float32
        [n, n_classes] of 0 and 1, rows of -1 where hidden.
    classes
        The classes in order: int64, bool or str; multi-label: column numbers.
    """

    numbers: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    @property
    def multilabel(self) -> bool:
        """Whether an item may have several classes."""
        return self.numbers.ndim == 2

    @property
    def labels_per_item(self) -> float:
        """Mean number of labels of an item whose labels are known."""
        if not self.multilabel:
            return 1.0
        return float(self.numbers[self.known].sum(axis=1).mean())

    @property
    def known(self) -> Ids:
        """Ids of the items whose labels are known, ascending."""
        return np.flatnonzero(is_labelled(self.numbers))

    def one_hot(self, ids: Ids) -> Float32Array:
        """Return the labels of the items `ids`: [m, C] of 0 and 1, rows of 0 where hidden."""
        numbers = self.numbers[ids]
        if self.multilabel:
            return np.asarray(np.maximum(numbers, 0), np.float32)
        return np.asarray(np.equal.outer(numbers, np.arange(len(self.classes))), np.float32)

    def without(self, ids: npt.NDArray[np.int64]) -> ClassLabels:
        """Hide the labels of some items."""
        numbers = self.numbers.copy()
        numbers[ids] = -1
        return ClassLabels(numbers, self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return what a saved model keeps: the classes, not the training labels."""
        return {
            "dtype": self.classes.dtype.str,
            "classes": self.classes.tolist(),
            "multilabel": self.multilabel,
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> ClassLabels:
        """Restore what `to_json` returned: the classes, without items."""
        classes = np.array(saved["classes"], dtype=saved["dtype"])
        shape = (0, len(classes)) if saved["multilabel"] else (0,)
        return cls(np.zeros(shape, np.int64), classes)


def read_labels(y: Any, n_items: int, method: str) -> ClassLabels:
    """Read the labels of training items and number the classes.

    Parameters
    ----------
    y : array-like [n] or [n, n_classes]
        Labels in any form that `ssbhash.data.number_labels` reads.
    n_items : int
        Number of items; each needs a label, or the mark that it has none.
    method : str
        Name of the estimator, for errors.

    Returns
    -------
    ClassLabels
        At least one known label and, unless multi-label, two classes.

    Raises
    ------
    TypeError, ValueError
        If y is missing, has another length than X, cannot be read, hides every label, or
        knows fewer than two classes.
    """
    if y is None:
        raise ValueError(
            f"{method} requires y to be passed, but the target y is None: class ids, -1 where "
            "unlabelled. BernoulliVAE and VDSH learn without labels"
        )
    if getattr(y, "shape", ())[1:] == (1,) and not hasattr(y, "tocsr"):
        y = column_or_1d(y, warn=True)
    (numbers,), classes = number_labels(y, names=["y"])
    if len(numbers) != n_items:
        raise ValueError(f"y has {len(numbers)} rows, X has {n_items}")
    known = is_labelled(numbers)
    if not known.any():
        raise ValueError(
            f"{method} needs labels, but all {n_items} labels in y are hidden (-1); "
            "BernoulliVAE and VDSH learn without labels"
        )
    if len(classes) < 2:
        hint = "" if known.all() else "; -1, None and NaN mean unlabelled, so number classes from 0"
        raise ValueError(
            f"y knows one class only ({classes.tolist()[0]!r}); {method} needs at least two "
            f"classes{hint}"
        )
    return ClassLabels(numbers.astype(np.float32) if numbers.ndim == 2 else numbers, classes)
