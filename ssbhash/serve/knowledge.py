"""What is known of items beside their codes: the model, their texts, labels and pictures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.data import read_items

_LARGEST = float(np.finfo(np.float32).max)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")


class Encoder:
    """A trained model, for one thread at a time.

    Parameters
    ----------
    model
        What `ssbhash.load` returns.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        hasher = getattr(model, "hasher", model)
        self.n_bits = int(hasher.n_bits)
        self.n_features = int(hasher.n_features_in_)
        self.method = str(getattr(hasher, "method", type(hasher).__name__))
        self.reads_texts = getattr(model, "text", None) is not None
        self.classes: list[str] = []
        if hasattr(hasher, "predict_proba"):
            names = getattr(model, "classes", None) or list(hasher.classes_)
            self.classes = [str(name) for name in names]
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: str | Path) -> Encoder:
        """Open a saved model."""
        from ssbhash.models import load

        return cls(load(folder))

    def check(self, texts: list[str] | None, vectors: Any) -> None:
        """Refuse what this model does not read.

        Raises
        ------
        ValueError
        """
        if (texts is not None) != self.reads_texts:
            reads = "texts" if self.reads_texts else f"vectors of {self.n_features} numbers"
            raise ValueError(f"the model reads {reads}")
        if vectors is not None and vectors.shape[1] != self.n_features:
            raise ValueError(
                f"the model reads vectors of {self.n_features} numbers, got {vectors.shape[1]}"
            )
        if vectors is not None and not (np.abs(vectors) <= _LARGEST).all():
            raise ValueError(f"vectors must be finite, {_LARGEST:.4g} at most")

    def encode(self, items: Any) -> Codes:
        """Turn texts or vectors into codes."""
        with self._turn:
            return np.asarray(self._model.transform(items))

    def probabilities(self, items: Any) -> list[dict[str, float]]:
        """Estimate the probability of each class, for each item."""
        with self._turn:
            found = self._model.predict_proba(items)
        return [dict(zip(self.classes, row, strict=True)) for row in found.tolist()]


class Catalogue:
    """Texts or vectors, labels and pictures of items, by id."""

    def __init__(
        self, path: str | Path | None, *, id_field: str | None = None, thumbnails: str | None = None
    ) -> None:
        self._items = None if path is None else read_items(path, id=id_field)
        self._row_of: dict[str, int] | None = None
        if self._items is not None and self._items.ids is not None:
            self._row_of = {str(one): row for row, one in enumerate(self._items.ids)}
        self._thumbnails = None if thumbnails is None else Path(thumbnails)
        if self._thumbnails is not None and not self._thumbnails.is_dir():
            raise NotADirectoryError(20, "is no folder of pictures", str(thumbnails))

    def of(self, one: int | str) -> dict[str, Any]:
        """Tell what is known of an item: some of text, label and thumbnail."""
        found: dict[str, Any] = {}
        row = self._row(one)
        if row is not None and self._items is not None:
            if self._items.texts is not None:
                found["text"] = self._items.texts[row]
            if self._items.labels is not None:
                label = _shown(self._items.labels[row])
                if label is not None:
                    found["label"] = label
        if self.picture(one) is not None:
            found["thumbnail"] = f"thumbnails/{quote(str(one), safe='')}"
        return found

    def inputs(self, ids: list[Any]) -> tuple[list[int], Any]:
        """Return which of the ids have a text or a vector, and these."""
        rows = [self._row(one) for one in ids]
        places = [place for place, row in enumerate(rows) if row is not None]
        chosen = [row for row in rows if row is not None]
        if self._items is None or not chosen:
            return [], None
        if self._items.texts is not None:
            return places, [self._items.texts[row] for row in chosen]
        return places, self._items.features[chosen]

    def picture(self, one: int | str) -> Path | None:
        """Find the picture of an item."""
        name = str(one)
        if self._thumbnails is None or "/" in name or "\0" in name or name.startswith("."):
            return None
        paths = (self._thumbnails / f"{name}{suffix}" for suffix in _PICTURES)
        return next((path for path in paths if _is_file(path)), None)

    def _row(self, one: int | str) -> int | None:
        if self._items is None:
            return None
        if self._row_of is not None:
            return self._row_of.get(str(one))
        return one if isinstance(one, int) and 0 <= one < len(self._items) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _shown(label: Any) -> str | None:
    """Write a label; None for an unlabelled item."""
    if label is None or isinstance(label, str):
        return label or None
    if isinstance(label, list | tuple | np.ndarray):
        array: npt.NDArray[Any] = np.asarray(label)
        is_indicator = isinstance(label, np.ndarray) and array.dtype.kind in "biuf"
        chosen = np.flatnonzero(array > 0) if is_indicator else array
        return ", ".join(str(one) for one in chosen) or None
    return None if label == -1 else str(label)
