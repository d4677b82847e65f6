"""Labels as people write them to labels as the models read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def encode_labels(*parts: Array | list[Any]) -> tuple[list[Array], list[Any]]:
    """Turn labels of one or more files into class ids that agree between them.

    Parameters
    ----------
    *parts : arrays or lists
        Arrays pass as they are: class ids with -1 = unlabelled, or 0/1 indicator
        matrices whose unlabelled rows are -1. In lists, None or -1 is unlabelled, a
        list of classes makes all of them multi-label.

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
    if all(isinstance(part, np.ndarray) for part in parts):
        return [_label_array(np.asarray(part)) for part in parts], []
    lists = [part.tolist() if isinstance(part, np.ndarray) else part for part in parts]
    if any(isinstance(part, np.ndarray) and part.ndim != 1 for part in parts):
        raise ValueError("an indicator matrix cannot be matched with labels by name")
    rows = [[_classes_of(label) for label in part] for part in lists]
    known = {one for part in rows for row in part if row is not None for one in row}
    if len({type(one) for one in known}) > 1:
        raise ValueError("labels must be all text or all whole numbers, got both")
    classes = sorted(known)
    ids = {one: position for position, one in enumerate(classes)}
    is_multi = any(isinstance(label, list) for part in lists for label in part)
    encode = _indicators if is_multi else _class_ids
    return [encode(part, ids) for part in rows], classes


def _classes_of(label: Any) -> list[Any] | None:
    if label is None or (isinstance(label, int) and label == -1):
        return None
    row = label if isinstance(label, list) else [label]
    for one in row:
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise TypeError(f"a label must be text, a whole number or a list of them, got {one!r}")
    return row


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
    whole = labels.astype(np.int64 if labels.ndim == 1 else np.int8)
    if not np.array_equal(whole, labels):
        raise ValueError("labels must be whole numbers (-1 = unlabelled)")
    return whole


def hide_labels(labels: Array, supervision: float, seed: int) -> Array:
    """Keep the labels of a random part of the items, and make the others -1.

    One seed keeps nested parts: a lower level keeps a subset of what a higher one keeps.

    Examples
    --------
    >>> hide_labels(np.array([3, 1, 2, 5]), supervision=0.5, seed=0).tolist()
    [3, -1, 2, -1]
    """
    if not 0 < supervision <= 1:
        raise ValueError(f"supervision must be above 0 and at most 1, got {supervision}")
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    n_kept = max(1, int(supervision * len(labels) + 1e-9))
    hidden = np.random.default_rng(seed).permutation(len(labels))[n_kept:]
    kept: Array = labels.copy()
    kept[hidden] = -1
    return kept
