"""Labels as people write them to labels as the models read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def encode_labels(*parts: Array | list[Any]) -> tuple[list[Array], list[Any]]:
    """Turn labels of one or more files into class ids that agree between them.

    Parameters
    ----------
    *parts : arrays or lists
        Arrays of numbers pass as they are: class ids with -1 = unlabelled, or 0/1
        indicator matrices whose unlabelled rows are -1. In lists and in arrays of text or
        objects, each label is a text, a whole number or a truth value. A list of classes
        makes all of them multi-label. None, NaN, -1, "" and "-1" are unlabelled: no class
        has such a name.

    Returns
    -------
    encoded : list of int64 [n] or int8 [n, n_classes]
    classes : list
        The class of each id; empty where arrays passed as they are.

    Examples
    --------
    >>> encoded, classes = encode_labels(["tea", None, "ant"], ["tea"])
    >>> [part.tolist() for part in encoded], classes
    ([[1, -1, 0], [1]], ['ant', 'tea'])
    """
    if all(_is_numbers(part) for part in parts):
        return [_label_array(np.asarray(part)) for part in parts], []
    if any(isinstance(part, np.ndarray) and part.ndim != 1 for part in parts):
        raise ValueError("an indicator matrix cannot be matched with labels by name")
    rows = [[_classes_of(label) for label in part] for part in parts]
    known = {one for part in rows for row in part if row is not None for one in row}
    if len({type(one) for one in known}) > 1:
        kinds = sorted(map(repr, {type(one): one for one in known}.values()))
        raise ValueError(f"labels must be of one kind, got both {kinds[0]} and {kinds[-1]}")
    classes = sorted(known)
    ids = {one: position for position, one in enumerate(classes)}
    is_multi = any(isinstance(label, list | tuple) for part in parts for label in part)
    encode = _indicators if is_multi else _class_ids
    return [encode(part, ids) for part in rows], classes


def _is_numbers(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind in "biuf"


def _classes_of(label: Any) -> list[Any] | None:
    """Classes of an item; None where it is unlabelled."""
    if isinstance(label, list | tuple | np.ndarray):
        found = [_class_of(one) for one in label]
        if None in found:
            raise TypeError(f"a list of labels must name classes, got {label!r}")
        return found
    one = _class_of(label)
    return None if one is None else [one]


def _class_of(label: Any) -> Any:
    label = label.item() if isinstance(label, np.generic) else label
    if label is None or type(label).__name__ in ("NAType", "NaTType"):  # pandas
        return None
    if isinstance(label, float):  # whole numbers with gaps, as pandas writes them
        if math.isnan(label):
            return None
        label = int(label) if label.is_integer() else label
    if isinstance(label, bool):
        return label
    if isinstance(label, str | int):
        return None if label in ("", "-1", -1) else label
    raise TypeError(
        f"a label must be text, a whole number, a truth value or a list of them, got {label!r}"
    )


def _class_ids(rows: list[list[Any] | None], ids: dict[Any, int]) -> Array:
    return np.array([-1 if row is None else ids[row[0]] for row in rows], np.int64)


def _indicators(rows: list[list[Any] | None], ids: dict[Any, int]) -> Array:
    encoded = np.zeros((len(rows), len(ids)), np.int8)
    for position, row in enumerate(rows):
        if row is None:
            encoded[position] = -1
        else:
            encoded[position, [ids[one] for one in row]] = 1
    return encoded


def _label_array(labels: Array) -> Array:
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "biuf":
        raise ValueError(
            "labels must be class ids [n] or an indicator matrix [n, n_classes], "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if labels.dtype.kind == "f":  # whole numbers with gaps, as pandas writes them
        labels = np.where(np.isnan(labels), -1, labels)
        if not np.isfinite(labels).all():
            raise ValueError("labels must be whole numbers (-1 = unlabelled), got an infinity")
    whole = labels.astype(np.int64 if labels.ndim == 1 else np.int8)
    if not np.array_equal(whole, labels):
        raise ValueError("labels must be whole numbers (-1 = unlabelled)")
    return whole


def hide_labels(labels: Array, supervision: float, seed: int) -> Array:
    """Keep a random part of the labels, and make the others -1.

    One seed keeps nested parts: a lower level keeps a subset of what a higher one keeps.

    Examples
    --------
    >>> hide_labels(np.array([3, 1, 2, 5]), supervision=0.5, seed=0).tolist()
    [3, -1, 2, -1]
    """
    if not 0 < supervision <= 1:
        raise ValueError(f"supervision must be above 0 and at most 1, got {supervision}")
    labelled = np.flatnonzero(labels.reshape(len(labels), -1)[:, 0] >= 0)
    n_labelled = len(labelled)
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    n_kept = int(supervision * n_labelled + 1e-9)
    if n_labelled and not n_kept:
        # Two labels at least, for two classes, rounded up to one digit.
        least = 2 / n_labelled
        digit = 10.0 ** math.floor(math.log10(least))
        raise ValueError(
            f"supervision {supervision:g} leaves none of {n_labelled:,} labels; use at least "
            f"{min(1, math.ceil(least / digit - 1e-9) * digit):g}"
        )
    hidden = np.random.default_rng(seed).permutation(n_labelled)[n_kept:]
    kept: Array = labels.copy()
    kept[labelled[hidden]] = -1
    return kept
