"""A hasher with the vocabulary, columns and class names that it needs to read raw items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.data import FILE_NAME, Items, TextFeatures, encode_labels, files
from ssbhash.models.base import Hasher, load_with
from ssbhash.nn import EncoderFactory

CLASSES_NAME, COLUMNS_NAME = "classes.json", "columns.json"


class Pipeline:
    """Items to codes: features straight into a hasher, texts through a vocabulary.

    Parameters
    ----------
    hasher
        An estimator of `ssbhash.models`.
    text
        How to make features of texts; None for a hasher of features.
    classes
        The name of each class id, if labels came by name.
    columns
        The name of each feature, if features came by name.

    Examples
    --------
    >>> from ssbhash import SSBVAE
    >>> from ssbhash.data import Items
    >>> texts = ["green tea", "black tea", "red ants", "black ants"] * 5
    >>> labels = ["drink", None, "insect", None] * 5
    >>> pipeline = Pipeline(SSBVAE(n_bits=16, n_epochs=30), TextFeatures(min_df=1))
    >>> pipeline.fit(Items(texts=texts, labels=labels)).transform(["white tea"]).shape
    (1, 2)
    >>> pipeline.predict(["white tea", "two ants"])
    ['drink', 'insect']
    """

    def __init__(
        self,
        hasher: Any,
        text: TextFeatures | None = None,
        classes: list[Any] | None = None,
        columns: list[str] | None = None,
    ) -> None:
        self.hasher = hasher
        self.text = text
        self.classes = classes or []
        self.columns = columns

    def fit(self, items: Items, y: npt.NDArray[Any] | None = None) -> Pipeline:
        """Choose the vocabulary on texts, then train the hasher.

        Parameters
        ----------
        items
            Texts or features, and labels.
        y
            Labels in place of those of `items`, as in `Hasher.fit`.

        Returns
        -------
        Pipeline
            Itself, fitted.
        """
        if y is None and items.labels is not None:
            (y,), self.classes = encode_labels(items.labels)
        x, target = self.fit_text(items)
        self.hasher.fit(x, y, target=target)
        return self

    def fit_text(self, items: Items) -> tuple[Any, Any]:
        """Choose the vocabulary on texts; features pass through.

        Parameters
        ----------
        items
            Texts or features.

        Returns
        -------
        tuple
            The features and the target that the hasher is to be fitted to. The target is
            None for features, and for a hasher that reconstructs nothing.
        """
        self.columns = items.columns
        if items.texts is None:
            self.text = None
            return items.features, None
        self.text = self.text or TextFeatures()
        counts = self.text.fit(items.texts).counts(items.texts)
        target = self.text.targets(counts) if self.hasher.reconstructs else None
        return self.text.inputs(counts), target

    def transform(self, X: Any) -> Codes:
        """Turn items into codes, uint8 [n, n_bytes].

        Parameters
        ----------
        X
            A list of n texts, or features [n, n_features]: what the model was trained on.

        Returns
        -------
        uint8 [n, n_bytes]
            Packed codes.
        """
        codes: Codes = self.hasher.transform(self._inputs(_items(X)))
        return codes

    def logits(self, X: Any) -> npt.NDArray[np.float32]:
        """Compute the real numbers whose signs are the code.

        Parameters
        ----------
        X
            As in `transform`.

        Returns
        -------
        float32 [n, n_bits]
            See `Hasher.logits`.
        """
        logits: npt.NDArray[np.float32] = self.hasher.logits(self._inputs(_items(X)))
        return logits

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Estimate class probabilities.

        Parameters
        ----------
        X
            As in `transform`.

        Returns
        -------
        float32 [n, n_classes]
            In the order of `classes`.
        """
        found: npt.NDArray[np.float32] = self.hasher.predict_proba(self._inputs(_items(X)))
        return found

    def predict(self, X: Any) -> list[Any]:
        """Predict classes, by name.

        Parameters
        ----------
        X
            As in `transform`.

        Returns
        -------
        list
            The class of each item; multi-label: a list of classes for each.

        Raises
        ------
        ValueError
            If the model learns without labels.
        """
        if not hasattr(self.hasher, "predict"):
            raise ValueError(f"a {self.hasher.method} model learns without labels: no predictions")
        found = self.hasher.predict(self._inputs(_items(X)))
        names = self.classes or list(range(len(self.hasher.classes_)))
        if found.ndim == 1:
            return [names[number] for number in found] if self.classes else found.tolist()
        return [[names[number] for number in np.flatnonzero(row)] for row in found]

    def encode(self, items: Items) -> Codes:
        """Turn the items of a file into codes.

        Parameters
        ----------
        items
            As `ssbhash.data.read_items` returns them.

        Returns
        -------
        uint8 [n, n_bytes]
            Packed codes.
        """
        codes: Codes = self.hasher.transform(self._inputs(items))
        return codes

    def to(self, device: Any) -> Pipeline:
        """Move the hasher to a device.

        Parameters
        ----------
        device
            As in `Hasher.to`.

        Returns
        -------
        Pipeline
            Itself.
        """
        self.hasher.to(device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder, all of it or nothing.

        Beside the files of `Hasher.save`, `text.json` has the vocabulary, `classes.json` the
        names of classes, `columns.json` those of features.

        Parameters
        ----------
        folder
            A folder, made if needed.
        """
        beside = {} if self.text is None else {FILE_NAME: self.text.to_bytes()}
        for name, content in ((CLASSES_NAME, self.classes), (COLUMNS_NAME, self.columns)):
            if content:
                beside[name] = files.json_bytes(content)
        self.hasher._save(folder, beside)

    @classmethod
    def load(
        cls, folder: str | Path, device: Any = "cpu", encoder: EncoderFactory | None = None
    ) -> Pipeline:
        """Read what `save` wrote, or the folder of a hasher alone.

        Parameters
        ----------
        folder, device, encoder
            As in `ssbhash.load`.

        Returns
        -------
        Pipeline
            Without a vocabulary where the folder is that of a hasher.

        Raises
        ------
        FileNotFoundError, ValueError
            As in `ssbhash.load`.
        """
        hasher, beside = load_with(folder, device, encoder)
        return cls._of(hasher, beside, Path(folder))

    @classmethod
    def _of(cls, hasher: Hasher, beside: dict[str, bytes], folder: Path) -> Pipeline:
        text = None
        if FILE_NAME in beside:
            text = TextFeatures.from_bytes(beside[FILE_NAME], folder / FILE_NAME)
            if len(text.terms_) != hasher.n_features_in_:
                raise ValueError(
                    f"{folder / FILE_NAME} has {len(text.terms_)} terms, "
                    f"the model has {hasher.n_features_in_} features"
                )
        classes, columns = (
            files.parse_json(beside[name], folder / name) if name in beside else None
            for name in (CLASSES_NAME, COLUMNS_NAME)
        )
        return cls(hasher, text, classes, columns)

    def _inputs(self, items: Items) -> Any:
        """Make the features that the model was trained on, in the order of its columns."""
        if (self.text is not None) != (items.texts is not None):
            kinds = ("features", "texts") if self.text is None else ("texts", "features")
            raise ValueError(f"the model was trained on {kinds[0]}, but the items are {kinds[1]}")
        if self.text is not None:
            return self.text.transform(items.texts or [])
        if self.columns is None or items.columns is None or items.columns == self.columns:
            return items.features
        missing = [name for name in self.columns if name not in items.columns]
        other = [name for name in items.columns if name not in self.columns]
        if missing or other:
            raise ValueError(
                "the columns are not those that the model was trained on: "
                f"missing {_some(missing)}; unknown {_some(other)}"
            )
        place = {name: number for number, name in enumerate(items.columns)}
        return items.features[:, [place[name] for name in self.columns]]


def load(folder: str | Path, device: Any = "cpu", encoder: EncoderFactory | None = None) -> Any:
    """Open a saved model, of any method: from the command line or from Python.

    Parameters
    ----------
    folder : path
        What `ssbhash train`, `Hasher.save` or `Pipeline.save` wrote.
    device
        Where the model encodes: a torch device, or "auto" for CUDA where present.
    encoder
        The function that the model was trained with, if it was.

    Returns
    -------
    Pipeline or Hasher
        Both have `transform` and `logits`, and `predict` and `predict_proba` if the method
        learns from labels. A `Pipeline` takes a list of texts if it was trained on texts,
        and predicts classes by name.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file of the model, is missing.
    ValueError
        If a file is truncated, damaged, foreign, or from another save.

    Examples
    --------
    >>> import tempfile
    >>> import ssbhash
    >>> from ssbhash.data import Items, TextFeatures
    >>> from ssbhash.models import Pipeline
    >>> texts = ["green tea", "black tea", "red ants", "black ants"] * 5
    >>> items = Items(texts=texts, labels=["drink", "drink", "insect", "insect"] * 5)
    >>> pipeline = Pipeline(ssbhash.SSBVAE(n_bits=16, n_epochs=30), TextFeatures(min_df=1))
    >>> folder = tempfile.mkdtemp()
    >>> pipeline.fit(items).save(folder)
    >>> model = ssbhash.load(folder)
    >>> codes = model.transform(texts)
    >>> ssbhash.search(codes, model.transform(["black ants"]), k=3).ids.shape
    (1, 3)
    >>> model.predict(["a cup of tea"])
    ['drink']
    """
    hasher, beside = load_with(folder, device, encoder)
    return Pipeline._of(hasher, beside, Path(folder)) if beside else hasher


def _items(X: Any) -> Items:
    """Wrap texts (a list, or a 1-D array or column of text) or features."""
    if isinstance(X, Items):
        return X
    if isinstance(X, str):
        raise TypeError("X must be a list of texts, or features; got one string")
    is_column = getattr(X, "ndim", None) == 1 and getattr(X.dtype, "kind", "") in "OUT"
    if is_column or isinstance(X, list | tuple):
        values = list(X)
        if is_column or all(isinstance(one, str) for one in values):
            return Items(texts=values)
    return Items(features=X)


def _some(names: list[str]) -> str:
    return (
        ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "") if names else "none"
    )
