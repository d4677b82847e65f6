"""Baselines: scikit-learn estimators that a learned method must beat.

`LSH`, `Sign` and `ITQ` use no labels. `ClassifierCodes` uses the known ones, and is the
baseline to beat. Importing this module needs the `train` extra. Classifiers and decompositions are
imported where they are used: they take 11 MB, and this module comes with every method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from ssbhash.arrays import Codes, Float32Array, Float64Array, Ids, as_count
from ssbhash.codes import pack
from ssbhash.data import is_labelled
from ssbhash.inputs import ClassLabels, CsrShards, as_float32, is_mostly_zero, read_labels
from ssbhash.models.checks import check_matrix
from ssbhash.models.classifying import PartlyLabelledClassifier, with_predictions
from ssbhash.models.projections import orthogonal_hyperplanes, rotation_to_signs

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

# Rows projected at once, so that sparse input is never dense as a whole.
_BLOCK_ROWS = 4096
# PCA of sparse input forms the covariance matrix up to this number of features, and takes Lanczos
# steps beyond.
_COVARIANCE_FEATURES = 1024


class _Hasher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the baselines: checks, and codes as the signs of logits."""

    n_bits: Any  # int, or None for one bit a feature
    seed: int

    def transform(self, X: Any) -> Codes:
        """Encode items.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            The items.

        Returns
        -------
        uint8 [n, n_bytes]
            Packed codes: bit j is set where logit j is above 0.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            If X is malformed, or has other features than in `fit`.
        """
        return self._codes(X)

    def _codes(self, X: Any) -> Codes:
        check_is_fitted(self)
        x = self._checked(X, reset=False)
        blocks = range(0, x.shape[0], _BLOCK_ROWS)
        return np.concatenate([pack(self._logits(x[i : i + _BLOCK_ROWS]) > 0) for i in blocks])

    def logits(self, X: Any) -> Float32Array:
        """Compute the real numbers whose signs are the bits.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            The items.

        Returns
        -------
        float32 [n, n_bits]
            A bit is set where the number is above 0.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            If X is malformed, has other features than in `fit`, or values too large.
        """
        check_is_fitted(self)
        values = as_float32(self._logits(self._checked(X, reset=False)))
        if not np.isfinite(values).all():
            raise ValueError("X has values too large: its logits are beyond float32; scale them")
        return values

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _checked(self, X: Any, reset: bool) -> Any:
        matrix = X[:] if isinstance(X, CsrShards) else X
        matrix = np.asarray(matrix) if isinstance(matrix, np.memmap) else matrix
        # float32 as for the learned methods, whatever comes in; float64 to calculate with.
        x = check_matrix(matrix, "X", partial(validate_data, self, reset=reset)).astype(np.float64)
        if reset:
            # By the share of zeros, not by the type of matrix: equal data gives equal codes.
            self._is_sparse = is_mostly_zero(x)
        if _is_sparse(x) != self._is_sparse:
            x = sp.csr_matrix(x) if self._is_sparse else x.toarray()
        if reset:
            as_count(self.seed, "seed", 0)
            if self.n_bits is not None:
                as_count(self.n_bits, "n_bits", 1)
            self._fitted_bits = self.n_features_in_ if self.n_bits is None else int(self.n_bits)
        return x

    @property
    def _n_features_out(self) -> int:
        return -(-self._fitted_bits // 8)

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class LSH(_Hasher):
    """Locality-sensitive hashing by random hyperplanes through the mean of the items.

    The chance that two codes agree in a bit falls linearly with the angle between the
    centred items (Charikar, "Similarity estimation techniques from rounding
    algorithms", STOC 2002).

    Parameters
    ----------
    n_bits : int
        Length of the code.
    seed : int
        Of the hyperplanes.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 5))
    >>> LSH(n_bits=16).fit(X).transform(X).shape
    (100, 2)
    """

    def __init__(self, n_bits: int = 32, *, seed: int = 0) -> None:
        self.n_bits = n_bits
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> LSH:
        """Draw hyperplanes and find the mean of the items.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            The items.
        y : None
            Ignored: no labels are needed.

        Returns
        -------
        LSH
            Itself, fitted.

        Raises
        ------
        TypeError, ValueError
            If X is malformed, or a parameter is out of range.
        """
        x = self._checked(X, reset=True)
        rng = np.random.default_rng(self.seed)
        self.weights_ = rng.standard_normal((x.shape[1], int(self.n_bits)))
        self.offsets_ = _mean(x) @ self.weights_
        return self

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        projected: npt.NDArray[Any] = x @ self.weights_ - self.offsets_
        return projected


class Sign(_Hasher):
    """Signs of the centred features: one bit for each feature.

    Parameters
    ----------
    n_bits : int, optional
        How many features to take, those of largest variance; by default all.
    seed : int
        Ignored, for nothing here is random. All hashers have it.

    Examples
    --------
    >>> import numpy as np
    >>> Sign().fit([[0, 0], [2, 4]]).transform([[0, 3]]).tolist()
    [[2]]
    """

    def __init__(self, n_bits: int | None = None, *, seed: int = 0) -> None:
        self.n_bits = n_bits
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Sign:
        """Find the mean of the items, and the features of largest variance.

        Parameters
        ----------
        X, y
            As in `LSH.fit`.

        Returns
        -------
        Sign
            Itself, fitted.

        Raises
        ------
        TypeError, ValueError
            If X is malformed, or a parameter is out of range, or there are fewer features
            than bits.
        """
        x = self._checked(X, reset=True)
        n_bits = x.shape[1] if self.n_bits is None else int(self.n_bits)
        if n_bits > x.shape[1]:
            raise ValueError(f"n_bits={n_bits} is more than the {x.shape[1]} features of X")
        mean = _mean(x)
        squares = x.multiply(x) if _is_sparse(x) else x * x
        variance = _mean(squares) - mean**2
        # Stable, so that equal variances keep the order of the features.
        self.features_ = np.sort(np.argsort(-variance, kind="stable")[:n_bits])
        self.offsets_ = mean[self.features_]
        return self

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        chosen = x[:, self.features_]
        return np.asarray(chosen.toarray() if _is_sparse(chosen) else chosen) - self.offsets_


class ITQ(_Hasher):
    """Iterative quantization: principal components, rotated towards their signs (PCA-ITQ).

    Gong & Lazebnik, "Iterative quantization: a Procrustean approach to learning binary
    codes", CVPR 2011. With more bits than components the projection is padded with zeros
    before the rotation.

    Parameters
    ----------
    n_bits : int
        Length of the code.
    n_iterations : int
        Alternations of signs and rotation.
    seed : int
        Of the first rotation.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 40))
    >>> ITQ(n_bits=16).fit(X).transform(X).shape
    (100, 2)
    """

    def __init__(self, n_bits: int = 32, *, n_iterations: int = 50, seed: int = 0) -> None:
        self.n_bits = n_bits
        self.n_iterations = n_iterations
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> ITQ:
        """Find the principal components of the items, and their rotation.

        Parameters
        ----------
        X, y
            As in `LSH.fit`.

        Returns
        -------
        ITQ
            Itself, fitted.

        Raises
        ------
        TypeError, ValueError
            If X is malformed, or a parameter is out of range.
        """
        x = self._checked(X, reset=True)
        n_iterations = as_count(self.n_iterations, "n_iterations", 0)
        n_bits = int(self.n_bits)
        pca = _principal_components(x, n_bits, self.seed)
        rotation = rotation_to_signs(pca.transform(x), n_bits, n_iterations, self.seed)
        self.weights_ = pca.components_.T @ rotation
        self.offsets_ = pca.mean_ @ self.weights_
        return self

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        projected: npt.NDArray[Any] = x @ self.weights_ - self.offsets_
        return projected


class ClassifierCodes(PartlyLabelledClassifier, _Hasher):
    """Class probabilities of a logistic regression, hashed: the baseline to beat.

    A logistic regression learns from the labelled items (multi-label: one for each
    class). The class probabilities of an item, minus their mean, are multiplied by random
    hyperplanes; the signs are its bits. The hyperplanes come in orthogonal blocks of as
    many as there are classes, so that few bits cover all classes.

    Dense features are centred and scaled by one number. Sparse ones are taken for text:
    idf weights, unit length, then a truncated SVD. These are fitted on all items, labelled
    or not.

    Parameters
    ----------
    n_bits : int
        Length of the code.
    C : float
        Inverse strength of the regularisation, as in scikit-learn.
    n_components : int, optional
        Of the truncated SVD of sparse features; None leaves the SVD out.
    seed : int
        Of the hyperplanes and of the SVD.

    Attributes
    ----------
    classes_ : array [n_classes]
        Class ids; multi-label: column numbers.
    transduction_ : array [n] or [n, n_classes]
        Classes of the items in `fit`: the known ones, and predictions for the others.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 5))
    >>> y = np.where(np.arange(100) < 20, X[:, 0] > 0, -1)  # 20 labels
    >>> hasher = ClassifierCodes(n_bits=16).fit(X, y)
    >>> hasher.transform(X).shape, hasher.predict_proba(X).shape
    ((100, 2), (100, 2))
    """

    def __init__(
        self,
        n_bits: int = 32,
        *,
        C: float = 0.03,
        n_components: int | None = 200,
        seed: int = 0,
    ) -> None:
        self.n_bits = n_bits
        self.C = C
        self.n_components = n_components
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> ClassifierCodes:
        """Learn from the labelled items.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            All items, labelled or not.
        y : array-like [n] or [n, n_classes]
            Labels in any form that `ssbhash.data.number_labels` reads.

        Returns
        -------
        ClassifierCodes
            Itself, fitted.

        Raises
        ------
        TypeError, ValueError
            If X is malformed, a parameter is out of range, or y is missing, hides all labels,
            or knows fewer than two classes.
        """
        x = self._checked(X, reset=True)
        if self.n_components is not None:
            as_count(self.n_components, "n_components", 1)
        labels = read_labels(y, x.shape[0], "ClassifierCodes")
        self.classes_ = labels.classes
        self._multilabel = labels.multilabel
        self._features = _Features(x, self.n_components, self.seed)
        inputs = self._features(x)
        self._classifiers = self._fit_classifiers(inputs, labels)
        probabilities = self._probabilities(inputs)
        hidden = probabilities[~is_labelled(labels.numbers)]
        self.transduction_ = with_predictions(labels, hidden)
        self.mean_ = probabilities.mean(axis=0)
        self.weights_ = orthogonal_hyperplanes(len(self.classes_), int(self.n_bits), self.seed)
        return self

    def predict_proba(self, X: Any) -> Float32Array:
        """Estimate class probabilities.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            The items.

        Returns
        -------
        float32 [n, n_classes]
            In the order of `classes_`. Each row sums to 1; multi-label: each entry by itself.
        """
        check_is_fitted(self)
        inputs = self._features(self._checked(X, reset=False))
        return self._probabilities(inputs).astype(np.float32)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict classes.

        Parameters
        ----------
        X : array or scipy sparse [n, n_features]
            The items.

        Returns
        -------
        array [n], or int64 [n, n_classes]
            The most probable of `classes_`; multi-label: indicators of probabilities above 1/2.
        """
        probabilities = self.predict_proba(X)
        if self._multilabel:
            return (probabilities > 0.5).astype(np.int64)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def _fit_classifiers(self, inputs: Any, labels: ClassLabels) -> list[Any]:
        """Fit one classifier; multi-label: one for each class, or its label if all agree."""
        from sklearn.linear_model import LogisticRegression

        known = labels.known
        inputs, numbers = inputs[known], labels.numbers[known]
        columns = numbers.T if labels.multilabel else [numbers]
        return [
            LogisticRegression(C=self.C, max_iter=1000).fit(inputs, column)
            if column.min() != column.max()
            else float(column[0])
            for column in columns
        ]

    def _probabilities(self, inputs: Any) -> npt.NDArray[Any]:
        if not self._multilabel:
            return np.asarray(self._classifiers[0].predict_proba(inputs))
        columns = [
            np.full(inputs.shape[0], one)
            if isinstance(one, float)
            else one.predict_proba(inputs)[:, 1]
            for one in self._classifiers
        ]
        return np.stack(columns, axis=1)

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        centred = self._probabilities(self._features(x)) - self.mean_
        return np.asarray(centred @ self.weights_)


class _SemiSupervisedCodes(ClassifierCodes, ABC):
    """Classifier codes of a classifier that learns from unlabelled items too."""

    @abstractmethod
    def _new_classifier(self, numbers: Ids) -> Any:
        """Make a classifier for labels [n], -1 where they are hidden."""

    def _fit_classifiers(self, inputs: Any, labels: ClassLabels) -> list[Any]:
        columns = labels.numbers.T if labels.multilabel else [labels.numbers]
        return [
            self._new_classifier(column).fit(inputs, column)
            if len(np.unique(column[column >= 0])) > 1
            else float(column.max())
            for column in columns
        ]


class SelfTrainingCodes(_SemiSupervisedCodes):
    """Classifier codes of a logistic regression that learns from its own sure predictions.

    In each of ten rounds, predictions with a probability above 0.9 join the labels (Yarowsky,
    ACL 1995).

    Parameters
    ----------
    n_bits, C, n_components, seed
        As in `ClassifierCodes`.

    Attributes
    ----------
    classes_ : array [n_classes]
        Class ids; multi-label: column numbers.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 5))
    >>> y = np.where(np.arange(100) < 20, X[:, 0] > 0, -1)  # 20 labels
    >>> SelfTrainingCodes(n_bits=16).fit(X, y).transform(X).shape
    (100, 2)
    """

    def _new_classifier(self, numbers: Ids) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.semi_supervised import SelfTrainingClassifier

        first = LogisticRegression(C=self.C, max_iter=1000)
        return SelfTrainingClassifier(first, threshold=0.9) if (numbers < 0).any() else first


class SpreadingCodes(_SemiSupervisedCodes):
    """Classifier codes of label spreading in place of a logistic regression.

    Labels spread over the graph of the ten nearest neighbours (Zhou et al., NeurIPS 2003).
    A new item takes the mean of its neighbours.

    Parameters
    ----------
    n_bits, n_components, seed
        As in `ClassifierCodes`.

    Attributes
    ----------
    classes_ : array [n_classes]
        Class ids; multi-label: column numbers.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 5))
    >>> y = np.where(np.arange(100) < 20, X[:, 0] > 0, -1)  # 20 labels
    >>> SpreadingCodes(n_bits=16).fit(X, y).transform(X).shape
    (100, 2)
    """

    def __init__(self, n_bits: int = 32, *, n_components: int | None = 200, seed: int = 0) -> None:
        self.n_bits = n_bits
        self.n_components = n_components
        self.seed = seed

    def _new_classifier(self, numbers: Ids) -> Any:
        from sklearn.semi_supervised import LabelSpreading

        n_neighbours = min(10, len(numbers))
        return LabelSpreading(kernel="knn", n_neighbors=n_neighbours, alpha=0.8, max_iter=300)

    def _probabilities(self, inputs: Any) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore"):
            found = super()._probabilities(inputs)
        # Items that no label reaches.
        return np.where(np.isfinite(found), found, 1 / len(self.classes_))


class Concatenated(PartlyLabelledClassifier, _Hasher):
    """Bits of classifier codes beside bits of ITQ.

    Parameters
    ----------
    n_bits : int
        Length of the code, at least 2.
    class_share : float
        Share of the bits that are classifier codes, rounded up.
    seed : int
        Of both.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 5))
    >>> y = np.where(np.arange(100) < 20, X[:, 0] > 0, -1)  # 20 labels
    >>> Concatenated(n_bits=16).fit(X, y).transform(X).shape
    (100, 2)
    """

    def __init__(self, n_bits: int = 32, *, class_share: float = 0.5, seed: int = 0) -> None:
        self.n_bits = n_bits
        self.class_share = class_share
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Concatenated:
        """Fit both parts.

        Parameters
        ----------
        X, y
            As in `ClassifierCodes.fit`.

        Returns
        -------
        Concatenated
            Itself, fitted.

        Raises
        ------
        TypeError, ValueError
            As `ClassifierCodes.fit`, or if a part would have no bit.
        """
        x = self._checked(X, reset=True)
        n_bits = int(self.n_bits)
        n_class_bits = int(np.ceil(self.class_share * n_bits))
        if not 0 < n_class_bits < n_bits:
            raise ValueError(
                f"class_share={self.class_share} of n_bits={n_bits} leaves no bit for one part"
            )
        self.parts_ = (
            ClassifierCodes(n_class_bits, seed=self.seed).fit(x, y),
            ITQ(n_bits - n_class_bits, seed=self.seed).fit(x),
        )
        self.classes_ = self.parts_[0].classes_
        self.transduction_ = self.parts_[0].transduction_
        return self

    def predict_proba(self, X: Any) -> Float32Array:
        """Estimate class probabilities, as `ClassifierCodes.predict_proba`.

        Parameters
        ----------
        X
            As there.

        Returns
        -------
        float32 [n, n_classes]
            As there.
        """
        check_is_fitted(self)
        return self.parts_[0].predict_proba(X)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict classes, as `ClassifierCodes.predict`.

        Parameters
        ----------
        X
            As there.

        Returns
        -------
        array [n], or int64 [n, n_classes]
            As there.
        """
        check_is_fitted(self)
        return self.parts_[0].predict(X)

    def _logits(self, x: Any) -> npt.NDArray[Any]:
        return np.concatenate([part._logits(x) for part in self.parts_], axis=1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


BASELINES: dict[str, type] = {
    "lsh": LSH,
    "sign": Sign,
    "itq": ITQ,
    "classifier": ClassifierCodes,
    "self-training": SelfTrainingCodes,
    "spreading": SpreadingCodes,
    "concatenated": Concatenated,
}


class _Features:
    """Inputs of the logistic regression, on one scale whatever the features.

    So one C suits all. Dense features have variance 1 on average; a row of text is as
    long as a row of 200 such features.
    """

    _TEXT_LENGTH = 200**0.5

    def __init__(self, x: Any, n_components: int | None, seed: int) -> None:
        self.idf = self.svd = None
        if not _is_sparse(x):
            self.mean = x.mean(axis=0)
            self.scale = float(np.sqrt(((x - self.mean) ** 2).mean())) or 1.0
            return
        self.idf = TfidfTransformer().fit(x)
        if n_components is not None:
            from sklearn.decomposition import TruncatedSVD

            n_components = min(n_components, *x.shape)
            # Where no feature varies its ratios of variances, which nobody reads, are 0 / 0.
            with np.errstate(invalid="ignore"):
                self.svd = TruncatedSVD(n_components, random_state=seed).fit(self.idf.transform(x))

    def __call__(self, x: Any) -> Any:
        if self.idf is None:
            return (x - self.mean) / self.scale
        weighted = self.idf.transform(x)
        if self.svd is not None:
            weighted = self.svd.transform(weighted)
        return normalize(weighted) * self._TEXT_LENGTH


def _is_sparse(x: Any) -> bool:
    return bool(sp.issparse(x))


def _mean(x: Any) -> Float64Array:
    return np.asarray(x.mean(axis=0), np.float64).ravel()


def _principal_components(x: Any, n_components: int, seed: int) -> PCA:
    from sklearn.decomposition import PCA

    n_components = min(n_components, *x.shape)
    solver = "auto"
    if _is_sparse(x):
        is_narrow = x.shape[1] <= _COVARIANCE_FEATURES
        solver = "covariance_eigh" if is_narrow else "arpack"
        if not is_narrow:  # arpack cannot find the last one
            n_components = min(n_components, min(x.shape) - 1)
    with np.errstate(invalid="ignore"):  # ratios of variances, as above
        return PCA(n_components, svd_solver=solver, random_state=seed).fit(x)
