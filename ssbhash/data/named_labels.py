"""Turns labels as people write them into class numbers.

`number_labels` reads the labels of `fit`, of the metrics and of files, so that a label means
the same everywhere. An item is unlabelled if its label is -1, None, NaN, pandas.NA, masked, or
the text "" or "-1". numpy and CSV files turn a -1 among names into such text.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import is_torch

Array = npt.NDArray[Any]

UNLABELLED = -1
_UNLABELLED_TEXT = ("", "-1")
# Missing values as text. A class may have such a name, too.
_DOUBTFUL_TEXT = ("nan", "NaN", "None", "<NA>", "NaT", "null")
_KINDS = {"b": "truth values", "i": "whole numbers", "U": "text"}


def number_labels(
    *parts: Any, names: Sequence[str] = ("labels",), class_lists: bool = False
) -> tuple[list[Array], Array]:
    """Turn one or more sets of labels into class numbers; a class has one number in all.

    Parameters
    ----------
    *parts : array-like [n] or [n, n_classes]
        One label for each item: whole numbers of any type, text or truth values, in a list,
        a numpy or masked array, a torch tensor, or a column of a data frame (also
        categorical or nullable). Or an indicator matrix of 0 and 1, dense or scipy sparse.
        Unlabelled is -1, None, NaN, pandas.NA, masked, "" or "-1"; in an indicator matrix
        a row of -1 or of NaN.
    names : sequence of str
        What errors call each part.
    class_lists : bool
        Whether a list in a part is a list of the item's classes, as in JSON lines, and not
        a row of an indicator matrix.

    Returns
    -------
    numbered : list of int64 [n] or int8 [n, n_classes]
        For each part the index into `classes`, -1 if unlabelled; or an indicator matrix
        whose unlabelled rows are -1.
    classes : array [n_classes]
        The classes in ascending order: int64, bool or str. The numbers of the columns for
        indicator matrices.

    Raises
    ------
    TypeError
        If a label is neither text, a whole number nor a truth value.
    ValueError
        If labels of several kinds are mixed, a number is not whole, or an indicator matrix
        holds anything but 0 and 1.

    Warns
    -----
    UserWarning
        If a class is called "nan" or "None", which may be a missing value.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.data import number_labels
    >>> numbered, classes = number_labels(["tea", None, "ant"], np.array(["tea", ""]))
    >>> [part.tolist() for part in numbered], classes.tolist()
    ([[1, -1, 0], [1, -1]], ['ant', 'tea'])
    """
    names = list(names) if len(names) == len(parts) else [names[0]] * len(parts)
    if class_lists and any(_has_lists(part) for part in parts):
        return _number_class_lists(parts, names)
    read = [_read(part, name) for part, name in zip(parts, names, strict=True)]
    are_matrices = {part.values.ndim == 2 for part in read}
    if are_matrices == {True}:
        widths = {part.values.shape[1] for part in read}
        if len(widths) > 1:
            raise ValueError(
                f"{' and '.join(names)} must be indicators of the same labels, got "
                f"{' and '.join(str(part.values.shape) for part in read)}"
            )
        return [part.values for part in read], np.arange(widths.pop())
    if len(are_matrices) > 1:
        raise ValueError(
            f"{' and '.join(names)} must both be class ids, or indicators of the same labels: an "
            "indicator matrix cannot be matched with labels by name"
        )
    return _number([part.values for part in read], [part.known for part in read], names)


def encode_labels(*parts: Any) -> tuple[list[Array], list[Any]]:
    """Turn labels of one or more files into class ids that agree between them.

    Parameters
    ----------
    *parts : array-like
        Labels as `number_labels` takes them. A list of classes makes all items multi-label.

    Returns
    -------
    encoded : list of int64 [n] or int8 [n, n_classes]
        Arrays of numbers alone keep their numbers; other labels become indices into
        `classes`. -1 is unlabelled.
    classes : list
        The class of each id; empty if arrays of numbers kept theirs.

    Examples
    --------
    >>> encoded, classes = encode_labels(["tea", None, "ant"], ["tea"])
    >>> [part.tolist() for part in encoded], classes
    ([[1, -1, 0], [1]], ['ant', 'tea'])
    """
    if all(isinstance(part, np.ndarray) and part.dtype.kind in "biuf" for part in parts):
        read = [_read(part, "labels") for part in parts]
        return [
            part.values
            if part.values.ndim == 2
            else np.where(part.known, part.values, UNLABELLED).astype(np.int64)
            for part in read
        ], []
    encoded, classes = number_labels(*parts, class_lists=True)
    return encoded, classes.tolist()


def hide_labels(labels: Array, supervision: float, seed: int) -> Array:
    """Keep a random part of the labels, and make the others -1.

    One seed keeps nested parts: a lower level keeps a subset of what a higher one keeps.

    Parameters
    ----------
    labels : int [n] or [n, n_classes]
        Class ids or an indicator matrix.
    supervision : float
        Share of the labels that are kept, above 0 and at most 1.
    seed : int
        Of the choice.

    Returns
    -------
    int [n] or [n, n_classes]
        A copy.

    Raises
    ------
    ValueError
        If `supervision` is out of range, or leaves no label.

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
        # At least two labels, for two classes; rounded up to one digit.
        least = 2 / n_labelled
        digit = 10.0 ** math.floor(math.log10(least))
        raise ValueError(
            f"supervision {supervision:g} leaves none of {n_labelled:,} labels; use at least "
            f"{min(1, math.ceil(least / digit - 1e-9) * digit):g}"
        )
    hidden = np.random.default_rng(seed).permutation(n_labelled)[n_kept:]
    kept: Array = labels.copy()
    kept[labelled[hidden]] = UNLABELLED
    return kept


def is_labelled(numbered: Array) -> npt.NDArray[np.bool_]:
    """Tell which items have a label.

    Parameters
    ----------
    numbered : int [n] or [n, n_classes]
        Labels as `number_labels` numbers them.

    Returns
    -------
    bool [n]
        False if the label, or the row of indicators, is -1.

    Examples
    --------
    >>> is_labelled(np.array([0, -1, 3])).tolist()
    [True, False, True]
    """
    known: npt.NDArray[np.bool_] = (numbered if numbered.ndim == 1 else numbered.T[0]) >= 0
    return known


class _Read:
    """One part as it was read: values, and which of them are labels."""

    def __init__(self, values: Array, known: npt.NDArray[np.bool_] | None = None) -> None:
        self.values = values  # int64, bool or str [n]; int8 [n, n_classes]
        self.known = np.ones(len(values), bool) if known is None else known


def _read(part: Any, name: str) -> _Read:
    array = _as_array(part, name)
    if array.ndim == 2 and array.shape[1] == 1:  # a column of class ids, as scikit-learn has it
        array = array[:, 0]
    if array.ndim == 2:
        return _Read(_indicators(array, name))
    if array.ndim != 1:
        raise ValueError(
            f"{name} must have one or two dimensions: class ids [n] or an indicator matrix "
            f"[n, n_classes], got shape {array.shape}"
        )
    if array.dtype.kind == "O":
        return _read_objects(array, name)
    if array.dtype.kind == "U":
        return _read_text(array, name)
    if array.dtype.kind == "b":
        return _Read(array)
    return _read_numbers(array, name)


def _as_array(part: Any, name: str) -> Array:
    """View labels as a numpy array: numbers, bool, str; object if they are mixed."""
    if part is None or isinstance(part, str | bytes | dict):
        raise TypeError(f"{name} must be labels, one for each item, got {type(part).__name__}")
    if is_torch(part):
        part = part.detach().cpu().to_dense()
        part = (part.float() if part.dtype.is_floating_point else part).numpy()
    elif hasattr(part, "toarray") and hasattr(part, "tocsr"):
        part = part.toarray()
    elif isinstance(part, np.ma.MaskedArray):
        masked, part = np.ma.getmaskarray(part), part.data.astype(object)
        part[masked] = None
    elif isinstance(part, Sequence) and not _has_lists(part):
        # Element by element: numpy would make -1 and NaN among names the text "-1" and "nan".
        items, part = part, np.empty(len(part), object)
        part[:] = items
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise ValueError(
            f"{name} must be class ids [n] or an indicator matrix [n, n_classes], got a ragged "
            "list; sklearn.preprocessing.MultiLabelBinarizer makes indicators of class lists"
        ) from error
    if array.dtype.kind == "T":  # numpy's variable-width text, which may have missing values
        array = array.astype(object)
    if array.dtype.kind == "S":
        raise TypeError(f"{name} must not be bytes; decode them: labels.astype(str)")
    if array.dtype.kind not in "biufUO":
        raise TypeError(f"{name} must hold text, whole numbers or truth values, got {array.dtype}")
    return array


def _has_lists(part: Any) -> bool:
    return isinstance(part, Sequence) and any(
        isinstance(one, list | tuple | set | np.ndarray) for one in part
    )


def _is_missing(label: Any) -> bool:
    if label is None or type(label).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    if isinstance(label, str):
        return label.strip() in _UNLABELLED_TEXT
    if isinstance(label, float | np.floating):
        return bool(np.isnan(label) or label == UNLABELLED)
    is_number = isinstance(label, numbers.Real) and not isinstance(label, bool | np.bool_)
    return bool(is_number and label == UNLABELLED)


def _kind(label: Any) -> str | None:
    if isinstance(label, str):
        return "U"
    if isinstance(label, bool | np.bool_):
        return "b"
    return "i" if isinstance(label, numbers.Real) else None


def _read_objects(array: Array, name: str) -> _Read:
    known = np.array([not _is_missing(one) for one in array], bool)
    labels = array[known].tolist()
    kinds: dict[str | None, Any] = {}
    for one in labels:
        kinds.setdefault(_kind(one), one)
    if None in kinds:
        raise TypeError(
            f"{name} must hold text, whole numbers or truth values for each label, got "
            f"{kinds[None]!r} of type {type(kinds[None]).__name__}"
        )
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise ValueError(
            f"{name}: labels must be all text or all whole numbers, got both {one!r} and {other!r}"
        )
    kind = next(iter(kinds), "i")
    if kind == "U":
        read = _read_text(np.array(labels, str), name)
    elif kind == "b":
        read = _Read(np.array(labels, bool))
    elif all(float(one).is_integer() for one in labels):
        try:
            read = _Read(np.array([int(one) for one in labels], np.int64))
        except OverflowError as error:
            raise ValueError(f"{name} has class ids beyond 64 bits") from error
    else:
        read = _read_numbers(np.array(labels, float), name)
    values = np.zeros(len(array), read.values.dtype)
    values[known] = read.values
    return _Read(values, known)


def _read_text(array: Array, name: str) -> _Read:
    known = ~np.isin(np.char.strip(array), _UNLABELLED_TEXT)
    doubtful = np.isin(array, _DOUBTFUL_TEXT)
    if doubtful.any():
        text = str(array[doubtful][0])
        warnings.warn(
            f"{name} has {int(doubtful.sum())} labels {text!r}, taken for a class of that name; "
            "mark unlabelled items by None or -1",
            UserWarning,
            stacklevel=2,
        )
    return _Read(array, known)


def _read_numbers(array: Array, name: str) -> _Read:
    if array.dtype.kind == "f":
        known = ~np.isnan(array) & (array != UNLABELLED)
        labels = array[known].astype(np.float64)
        if np.isinf(labels).any():
            raise ValueError(f"{name} contains infinity; mark an unlabelled item by -1")
        bad = (labels != np.trunc(labels)) | (abs(labels) >= 2**63)
        if bad.any():
            raise ValueError(
                f"Unknown label type: continuous. {name} must hold whole numbers as class ids, "
                f"got {labels[bad][0]}"
            )
        return _Read(np.where(known, array, 0).astype(np.int64), known)
    if array.dtype.kind == "u" and array.itemsize == 8 and (array >= 2**63).any():
        raise ValueError(f"{name} has class ids beyond 64 bits: {array.max()}")
    return _Read(array.astype(np.int64), array != UNLABELLED)


def _indicators(array: Array, name: str) -> Array:
    if array.dtype.kind == "O":
        try:
            cells = [[np.nan if _is_missing(one) else one for one in row] for row in array]
            array = np.array(cells, float).reshape(array.shape)
        except (TypeError, ValueError) as error:
            raise ValueError(f"an indicator matrix {name} must be numeric: {error}") from error
    if array.dtype.kind == "U":
        raise ValueError(f"an indicator matrix {name} must be numeric, got dtype {array.dtype}")
    hidden = np.zeros(len(array), bool)
    if array.dtype.kind in "if":
        hidden = ((array == UNLABELLED) | np.isnan(array)).all(axis=1)
    bad = ~((array == 0) | (array == 1)).all(axis=1) & ~hidden
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"an indicator matrix {name} must hold 0 and 1, or -1 in a whole row that is "
            f"unlabelled; row {row} is {array[row].tolist()}"
        )
    indicators = np.full(array.shape, UNLABELLED, np.int8)
    indicators[~hidden] = array[~hidden]
    return indicators


def _number(
    parts: list[Array], known: list[npt.NDArray[np.bool_]], names: Sequence[str]
) -> tuple[list[Array], Array]:
    """Count the classes of the labels [n] that were read."""
    labelled = [values[mask] for values, mask in zip(parts, known, strict=True) if mask.any()]
    kinds = {values.dtype.kind for values in labelled}
    if len(kinds) > 1:
        raise ValueError(
            f"{' and '.join(names)}: labels must be all text or all whole numbers, got "
            f"{' and '.join(sorted(_KINDS[kind] for kind in kinds))}"
        )
    every = np.concatenate(labelled) if labelled else np.empty(0, np.int64)
    classes, indices = np.unique(every, return_inverse=True)
    numbered, start = [], 0
    for mask in known:
        stop = start + int(mask.sum())
        one = np.full(len(mask), UNLABELLED, np.int64)
        one[mask] = indices[start:stop]
        numbered.append(one)
        start = stop
    return numbered, classes


def _number_class_lists(parts: Sequence[Any], names: Sequence[str]) -> tuple[list[Array], Array]:
    """Make indicators of parts whose items have lists of classes, or single ones."""
    flat, lengths = [], []
    for part, name in zip(parts, names, strict=True):
        if isinstance(part, np.ndarray) and part.ndim != 1:
            raise ValueError("an indicator matrix cannot be matched with labels by name")
        rows = [_classes_of(label, name) for label in part]
        lengths.append([len(row) for row in rows])
        flat.append(_read([one for row in rows for one in row], name))
    numbered, classes = _number([x.values for x in flat], [x.known for x in flat], names)
    parts_of = []
    for numbers_of, counts in zip(numbered, lengths, strict=True):
        indicators = np.zeros((len(counts), len(classes)), np.int8)
        rows_of = np.repeat(np.arange(len(counts)), counts)
        is_known = numbers_of >= 0
        indicators[rows_of[is_known], numbers_of[is_known]] = 1
        # An empty list says "no class"; a label that is missing says nothing.
        indicators[rows_of[~is_known]] = UNLABELLED
        parts_of.append(indicators)
    return parts_of, classes


def _classes_of(label: Any, name: str) -> list[Any]:
    if not isinstance(label, list | tuple | set | np.ndarray):
        return [label]
    classes = list(label)
    if any(_is_missing(one) for one in classes):
        raise TypeError(f"{name}: a list of labels must name classes, got {classes}")
    return classes
