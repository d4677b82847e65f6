"""scikit-learn's protocol of classifiers, for partly labelled items."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags

from ssbhash.data import is_labelled, number_labels
from ssbhash.inputs import ClassLabels


class PartlyLabelledClassifier(ClassifierMixin):  # type: ignore[misc]
    """Base of the estimators that predict classes: `score` and tags."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute the share of labelled items whose prediction is right.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            Items.
        y : array-like [n] or [n, n_classes]
            Labels, as in `fit`; unlabelled items are left out.
        sample_weight : array-like [n], optional
            Weight of each item.

        Returns
        -------
        float
            Accuracy. With several labels an item, all of them must be right.

        Raises
        ------
        ValueError
            If no item has a label, or y has another length than X.
        """
        predicted = self.predict(X)
        (true, given), _ = number_labels(y, predicted, names=["y", "the predictions"])
        if len(true) != len(given):
            raise ValueError(f"y has {len(true)} rows, X has {len(given)}")
        known = is_labelled(true)
        if not known.any():
            raise ValueError("y has no known label: there is nothing to score")
        right = (true == given).reshape(len(true), -1).all(axis=1)
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right[known], weights=weights))

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags


def with_predictions(labels: ClassLabels, predicted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fill the gaps of the training labels by predictions, for `transduction_`.

    Parameters
    ----------
    labels
        Labels of the training items.
    predicted : float [n_unlabelled, n_classes]
        Class probabilities of the unlabelled items, in their order.

    Returns
    -------
    array
        Classes [n]; multi-label: int8 indicators [n, n_classes].
    """
    known = is_labelled(labels.numbers)
    if labels.multilabel:
        indicators = labels.numbers.astype(np.int8)
        indicators[~known] = predicted > 0.5
        return indicators
    numbers = labels.numbers.copy()
    numbers[~known] = predicted.argmax(axis=1)
    return np.asarray(labels.classes[numbers])
