"""Cross-validation: how well an estimator's codes retrieve labelled training items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from ssbhash import metrics
from ssbhash.arrays import Ids
from ssbhash.data import UNLABELLED
from ssbhash.inputs import ClassLabels, CsrShards, read_labels
from ssbhash.models import Hasher, checks, saved_parameters

# Neighbours looked at among all items.
_DEPTH = 100
# Least number among the labelled items. The same share of them would often be 1 or 2: too noisy.
_LEAST_DEPTH = 10


@dataclass(frozen=True)
class Validation:
    """Cross-validation of one estimator on one data set.

    Parameters
    ----------
    hasher
        Unfitted, silent, without a checkpoint.
    x, target, labels
        Checked items, as for `fit`.
    folds
        Ids of the labelled items, in parts.
    k
        The score is P@k.
    """

    hasher: Any
    x: Any
    target: Any
    labels: ClassLabels
    folds: tuple[Ids, ...]
    k: int

    @classmethod
    def of(
        cls, hasher: Any, X: Any, y: Any, target: Any, n_folds: int, k: int | None, seed: int
    ) -> Validation:
        """Check an estimator and items, divide them into folds, and choose k if it is None.

        Raises
        ------
        TypeError, ValueError
            If an argument is malformed, or there are too few labels.
        """
        if not isinstance(hasher, Hasher):
            given = hasher.__name__ if isinstance(hasher, type) else type(hasher).__name__
            raise TypeError(f"hasher must be an estimator, as SSBVAE(n_bits=32), got {given}")
        checks.check(hasher)
        x = clone(hasher)._checked(X, reset=True)
        if target is not None:
            target = hasher._checked_target(target, x.shape[0])
        labels = read_labels(y, x.shape[0], "tune")
        folds = deal(labels, n_folds, seed)
        if k is None:
            k = _depth(labels, np.concatenate(folds), len(folds))
        quiet = {"verbose": False, "checkpoint": None}
        return cls(clone(hasher).set_params(**quiet), x, target, labels, folds, k)

    def score(self, parameters: dict[str, Any], fold: Ids) -> float:
        """Compute P@k of one fold among the other labelled items, whose labels alone are seen."""
        numbers = self.labels.numbers.copy()
        numbers[fold] = UNLABELLED
        hasher = clone(self.hasher).set_params(**parameters)
        hasher.fit(self.x, numbers, target=self.target)
        if hasher.interrupted_:  # a part of a training is no result
            raise KeyboardInterrupt
        codes = np.asarray(hasher.transform(self.x))
        database = np.setdiff1d(np.concatenate(self.folds), fold)
        known = self.labels.numbers.astype(np.int64)
        sides = codes[database], known[database], codes[fold], known[fold]
        return float(metrics.precision_at(*sides, k=self.k, n_bits=int(hasher.n_bits)))

    def fingerprint(self) -> str:
        """Tell this from others: parameters, sizes, folds, labels and the first rows."""
        ignored = ("verbose", "checkpoint", "device")
        given = saved_parameters(self.hasher).items()
        fixed = sorted((name, value) for name, value in given if name not in ignored)
        digest = hashlib.sha256(repr((self.hasher.method, fixed, self.x.shape, self.k)).encode())
        for rows in (self.x,) if self.target is None else (self.x, self.target):
            head = rows.shard(0)[:64] if isinstance(rows, CsrShards) else rows[:64]
            digest.update((head if isinstance(head, np.ndarray) else head.toarray()).tobytes())
        for numbers in (self.labels.numbers, *self.folds):
            digest.update(numbers.tobytes())
        return digest.hexdigest()


def deal(labels: ClassLabels, n_folds: int, seed: int) -> tuple[Ids, ...]:
    """Divide the labelled items into folds, those of each class evenly.

    An item of several classes counts for its rarest class. Classes of fewer items than folds
    are divided too; scikit-learn's folds refuse them.

    Raises
    ------
    ValueError
        If there are fewer labelled items than folds, no two items of one class, or only one
        class is left when a fold is hidden.
    """
    numbers, known = labels.numbers, labels.known
    if len(known) < n_folds:
        raise ValueError(f"n_folds={n_folds} needs as many labelled items; y has {len(known)}")
    if labels.multilabel:
        indicator = numbers[known] > 0
        counts = indicator.sum(0)
        rarity = np.where(indicator, counts, len(numbers) + 1)
        strata = np.where(indicator.any(1), rarity.argmin(1), len(counts))
    else:
        strata = numbers[known]
        counts = np.bincount(strata)
    if counts.max() < 2:
        raise ValueError("y needs two labelled items of one class, to rank one by the other")
    order = np.random.default_rng(seed).permutation(len(known))
    order = order[np.argsort(strata[order], kind="stable")]
    folds = tuple(np.sort(known[order[start::n_folds]]) for start in range(n_folds))
    for fold in folds if not labels.multilabel else ():
        if len(np.unique(numbers[np.setdiff1d(known, fold)])) < 2:
            raise ValueError(
                f"y has too few labels for n_folds={n_folds}: with one fold hidden they are "
                "of one class"
            )
    return folds


def _depth(labels: ClassLabels, known: Ids, n_folds: int) -> int:
    """Choose k: the same share of the labelled items that 100 is of all items, within limits."""
    share = (n_folds - 1) / n_folds
    numbers = labels.numbers[known]
    some = numbers[:: -(-len(numbers) // 1000)]
    alike = some @ numbers.T > 0 if labels.multilabel else some[:, None] == numbers
    n_relevant = share * (float(alike.sum(1).mean()) - 1)
    as_deep = _DEPTH * share * len(known) / len(labels.numbers)
    return max(1, round(min(max(_LEAST_DEPTH, as_deep), n_relevant)))
