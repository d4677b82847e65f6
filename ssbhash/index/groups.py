"""Groups of near-duplicates: connected components of the pairs within a radius."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ssbhash.arrays import ArrayIn, Codes, Ids, as_codes, as_count, like
from ssbhash.engines import (
    CodeOptions,
    CodesIn,
    Database,
    PreparedCodes,
    Progress,
    get,
    native_module,
)
from ssbhash.threads import resolve

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack


@overload
def groups_within(
    codes: Tensor,
    radius: int,
    *,
    progress: Progress | None = ...,
    **options: Unpack[CodeOptions],
) -> Tensor: ...
@overload
def groups_within(
    codes: ArrayIn | PreparedCodes,
    radius: int,
    *,
    progress: Progress | None = ...,
    **options: Unpack[CodeOptions],
) -> Ids: ...
def groups_within(
    codes: CodesIn,
    radius: int,
    *,
    progress: Progress | None = None,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Group codes that are joined by chains of near-duplicates.

    Two codes are in one group if steps of at most `radius` bits lead from one to the
    other. With the native engine, memory is linear in the codes, however many pairs there
    are.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        Packed codes.
    radius : int
        The largest distance of a step; 0 groups equal codes.
    progress : callable, optional
        As in `ssbhash.pairs_within`.
    n_bits, backend, n_threads
        As in `ssbhash.search`.

    Returns
    -------
    int64 [n]
        The smallest row of each code's group. torch codes give a torch tensor on their
        device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]]))
    >>> ssbhash.groups_within(codes, radius=1).tolist()
    [0, 1, 0, 1]
    """
    bits = None if n_bits is None else as_count(n_bits, "n_bits", 1)
    checked = as_codes(codes, "codes", bits)
    radius = min(as_count(radius, "radius", 0), 8 * checked.shape[1])
    engine, threads = get(backend), resolve(n_threads)
    if engine.NAME == "native":
        groups: Ids = native_module().near_groups(
            checked, radius=radius, n_threads=threads, progress=progress
        )
    else:
        groups = _by_pairs(checked, engine.pairs_within(Database(checked), radius, threads)[:2])
    if progress is not None:
        progress(1.0)
    return like(groups, codes)


def _by_pairs(codes: Codes, pairs: tuple[Ids, Ids]) -> Ids:
    """Pass the smallest row along the pairs until nothing changes."""
    first, second = pairs
    groups = np.arange(len(codes))
    while True:
        before = groups.copy()
        np.minimum.at(groups, second, groups[first])
        np.minimum.at(groups, first, groups[second])
        groups = groups[groups]  # and along the chains found so far
        if np.array_equal(groups, before):
            return groups
