"""Reads items from files for the commands."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssbhash.data import Items, encode_labels, files, hide_labels

if TYPE_CHECKING:
    from ssbhash.arrays import Codes


def read(
    data: Path, labels: Path | None, *, text: str, label: str, id: str | None, vector: str | None
) -> Items:
    """Read items, with labels from another file if one is given."""
    items = files.read_items(data, text=text, label=label, id=id, vector=vector)
    if labels is not None:
        items = replace(items, labels=files.read_labels(labels, label=label))
    return items


def require_labels(items: Items, data: Path, label: str, option: str, without: str = "") -> None:
    """Refuse items without labels.

    Raises
    ------
    ValueError
        The message says what there is, and what to do.
    """
    if items.labels is not None:
        return
    name = files.display(data)
    give = f"give {option} FILE" + (f", or use --method {without}" if without else "")
    if not items.fields:
        raise ValueError(f"{name} has no labels: {give}")
    if label in items.fields:
        raise ValueError(
            f"{name} has no label in field {label!r}. Name another with --label-field, {give}"
        )
    raise ValueError(
        f"{name} has no field {label!r} (fields: {', '.join(items.fields)}). "
        f"Name it with --label-field, {give}"
    )


def labels_of(items: Items, supervision: float | None, seed: int) -> tuple[Any, list[Any]]:
    """Return the class ids of the items, and the name of each class."""
    if items.labels is None:
        return None, []
    (y,), classes = encode_labels(items.labels)
    return (y if supervision is None else hide_labels(y, supervision, seed)), classes


def encode(model: Path, items: Items) -> tuple[Codes, int, float]:
    """Return codes, n_bits, and the seconds of encoding, without loading."""
    from ssbhash.models import Pipeline

    pipeline = Pipeline.load(model)
    started = time.perf_counter()
    codes = pipeline.encode(items)
    return codes, int(pipeline.hasher.n_bits), time.perf_counter() - started
