"""A hasher with what it needs to read items as they come: vocabulary and class names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.data import FILE_NAME, Items, TextFeatures, encode_labels, files
from ssbhash.models.base import load

CLASSES_NAME = "classes.json"


class Pipeline:
    """Items to codes: features straight into a hasher, texts through a vocabulary.

    Parameters
    ----------
    hasher
        An estimator of `ssbhash.models`.
    text
        How to make features of texts; None for a hasher of features.
    classes
        The name of each class id, where labels came by name.

    Examples
    --------
    >>> from ssbhash import SSBVAE
    >>> from ssbhash.data import Items
    >>> texts = ["green tea", "black tea", "red ants", "black ants"] * 5
    >>> labels = ["drink", None, "insect", None] * 5
    >>> pipeline = Pipeline(SSBVAE(n_bits=16, n_epochs=1), TextFeatures(min_df=1))
    >>> pipeline.fit(Items(texts=texts, labels=labels)).encode(Items(texts=["white tea"])).shape
    (1, 2)
    >>> pipeline.classes
    ['drink', 'insect']
    """

    def __init__(
        self, hasher: Any, text: TextFeatures | None = None, classes: list[Any] | None = None
    ) -> None:
        self.hasher = hasher
        self.text = text
        self.classes = classes or []

    def fit(self, items: Items, y: npt.NDArray[Any] | None = None) -> Pipeline:
        """Choose the vocabulary on texts, then train the hasher.

        `y` replaces the labels of `items`: class ids or an indicator matrix, -1 =
        unlabelled.
        """
        if y is None and items.labels is not None:
            (y,), self.classes = encode_labels(items.labels)
        x, target = self.fit_text(items)
        self.hasher.fit(x, y, target=target)
        return self

    def fit_text(self, items: Items) -> tuple[Any, Any]:
        """Choose the vocabulary; give what the hasher is fitted to: features and target."""
        if items.texts is None:
            self.text = None
            return items.features, None
        self.text = self.text or TextFeatures()
        counts = self.text.fit(items.texts).counts(items.texts)
        return self.text.inputs(counts), self.text.targets(counts)

    def encode(self, items: Items, *, database: bool = False) -> Codes:
        """Turn items, of the kind it was trained on, into packed codes.

        With `database` those of `Hasher.database_codes`, for items to be searched.
        """
        if (self.text is not None) != (items.texts is not None):
            kinds = ("features", "texts") if self.text is None else ("texts", "features")
            raise ValueError(f"the model was trained on {kinds[0]}, but the items are {kinds[1]}")
        x = items.features if self.text is None else self.text.transform(items.texts or [])
        codes: Codes = (self.hasher.database_codes if database else self.hasher.transform)(x)
        return codes

    def save(self, folder: str | Path) -> None:
        """Write the hasher's files, `text.json` and `classes.json` into a folder."""
        folder = Path(folder)
        for name, is_kept in ((FILE_NAME, self.text), (CLASSES_NAME, self.classes)):
            if not is_kept:  # an older model's must not describe this one
                (folder / name).unlink(missing_ok=True)
        self.hasher.save(folder)
        if self.text is not None:
            self.text.save(folder)
        if self.classes:
            files.write_json(folder / CLASSES_NAME, self.classes)

    @classmethod
    def load(cls, folder: str | Path) -> Pipeline:
        """Read what `save` wrote, or the folder of a hasher alone."""
        folder = Path(folder)
        hasher = load(folder)
        text = TextFeatures.load(folder) if (folder / FILE_NAME).exists() else None
        classes = None
        if (folder / CLASSES_NAME).exists():
            classes = json.loads((folder / CLASSES_NAME).read_bytes())
        return cls(hasher, text, classes)
