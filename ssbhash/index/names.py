"""Ids of users: integers, or strings that are numbered in order of insertion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Ids, as_numpy

MAX_ID = np.iinfo(np.int64).max - 1  # the largest number of all stands for no item


class Names:
    """The strings of an index: each has the number that it got when it was added.

    Names are only added, so that states of the index share them: an older state knows those
    whose number is below its `next_id`.
    """

    def __init__(self) -> None:
        self._of: dict[int, str] = {}
        self._numbers: dict[str, int] = {}  # the latest of each
        self._before: dict[int, int] = {}  # the number that a name had before this one

    def __len__(self) -> int:
        return len(self._of)

    def copy(self) -> Names:
        """Return a copy, to change without disturbing readers."""
        other = Names()
        other._of, other._numbers = dict(self._of), dict(self._numbers)
        other._before = dict(self._before)
        return other

    def add(self, numbers: Ids, names: Sequence[str]) -> None:
        """Name new items."""
        whole = numbers.tolist()
        self._of.update(zip(whole, names, strict=True))
        for number, name in zip(whole, names, strict=True):
            if name in self._numbers:
                self._before[number] = self._numbers[name]
            self._numbers[name] = number

    def only(self, numbers: Ids) -> Names:
        """Return the names of some items."""
        known = [number for number in numbers.tolist() if number in self._of]
        made = Names()
        made.add(np.array(known, np.int64), [self._of[number] for number in known])
        return made

    def to_bytes(self) -> bytes:
        """Write the names as JSON: the numbers, then the strings."""
        return json.dumps([list(self._of), list(self._of.values())]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Names:
        """Read what `to_bytes` wrote."""
        numbers, names = json.loads(content)
        made = cls()
        made.add(np.array(numbers, np.int64), names)
        return made

    def numbers(self, names: Sequence[str], next_id: int) -> Ids:
        """Return the latest number below `next_id` of each name; -1 if it has none."""
        found = [self._numbers.get(name, -1) for name in names]
        for place, number in enumerate(found):
            while number >= next_id:
                number = self._before.get(number, -1)
            found[place] = number
        return np.array(found, np.int64)

    def array(self, numbers: Ids) -> npt.NDArray[np.object_]:
        """Return the names in an array of the same shape; None for -1."""
        out = np.empty(numbers.shape, object)
        out.ravel()[:] = [self._of.get(number) for number in numbers.ravel().tolist()]
        return out


def are_names(ids: Any) -> bool:
    """Whether ids are strings."""
    if isinstance(ids, str):
        return True
    if isinstance(ids, np.ndarray):
        return ids.dtype.kind in "OUT" and ids.size > 0
    return isinstance(ids, Sequence) and len(ids) > 0 and isinstance(ids[0], str)


def as_names(ids: Any) -> list[str]:
    """Check string ids."""
    names = [ids] if isinstance(ids, str) else list(ids)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("ids must all be strings, or all integers")
    return [str(name) for name in names]


def as_ids(ids: Any, name: str = "ids") -> Ids:
    """Check integer ids: int64 [n], from 0 on."""
    numbers = np.atleast_1d(as_numpy(ids, name))
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} must be a list of integers, got {numbers.dtype} {numbers.shape}")
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most > MAX_ID:
        raise ValueError(f"{name} must be in 0 ... 2**63 - 2, got {least if least < 0 else most}")
    return np.ascontiguousarray(numbers, np.int64)


def check_one_for_each(ids: Sequence[Any] | Ids, n: int) -> None:
    """Check that each of n codes has an id, and that none is given twice."""
    if len(ids) != n:
        raise ValueError(f"there are {n} codes but {len(ids)} ids")
    repeated = _first_repeated(ids)
    if repeated is not None:
        raise ValueError(f"id {repeated!r} is given twice")


def _first_repeated(ids: Sequence[Any] | Ids) -> Any:
    """Return an id that is given twice, or None."""
    if isinstance(ids, np.ndarray):
        if len(ids) < 2 or bool(np.all(ids[1:] > ids[:-1])):
            return None
        ordered = np.sort(ids)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        return int(twice[0]) if len(twice) else None
    seen = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None
