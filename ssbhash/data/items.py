"""What a data file holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class Items:
    """Items of a data file; absent parts are None.

    Parameters
    ----------
    features : array or scipy CSR matrix [n, D]
        Vectors.
    texts : list of str
        Texts.
    labels : array or list
        An array of class ids, -1 for an unlabelled item, or an indicator matrix. Or a
        list with a class, a list of classes, or None (unlabelled) for each item.
    columns : list of str
        The D names of the features.
    ids : list
        The user's own name of each item.
    fields : tuple of str
        All fields that the file has, for messages.

    Examples
    --------
    >>> items = Items(texts=["green tea", "red ants"], labels=["drink", None])
    >>> len(items), items.features
    (2, None)
    """

    features: Any = None
    texts: list[str] | None = None
    labels: npt.NDArray[Any] | list[Any] | None = None
    columns: list[str] | None = None
    ids: list[Any] | None = None
    fields: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Count the items."""
        if self.texts is not None:
            return len(self.texts)
        return 0 if self.features is None else int(self.features.shape[0])


@dataclass(frozen=True)
class Fields:
    """Names of the fields to read; None for those that are not wanted."""

    text: str | None = "text"
    label: str = "label"
    id: str | None = None
    vector: str | None = None
