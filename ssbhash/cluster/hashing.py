"""Which shard an item belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def shards_of(ids: Ids, n_shards: int) -> npt.NDArray[np.int64]:
    """Return the shard of each id by jump consistent hashing.

    Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm" (2014). From n to
    n + 1 shards one item in n + 1 moves, always to the new shard.

    Parameters
    ----------
    ids : int64 [n]
        Ids.
    n_shards : int
        Number of shards, at least 1.

    Returns
    -------
    int64 [n]
        From 0 to n_shards - 1.

    Examples
    --------
    >>> import numpy as np
    >>> before, after = (shards_of(np.arange(1000), n) for n in (3, 4))
    >>> np.unique(after[before != after]).tolist()
    [3]
    >>> bool(np.bincount(after).min() > 200)
    True
    """
    key = _mixed(ids)
    shards = np.zeros(len(ids), np.int64)
    going = np.arange(len(ids))
    while len(going):
        key = key * np.uint64(2862933555777941757) + np.uint64(1)
        jump = (1 << 31) / ((key >> np.uint64(33)).astype(np.float64) + 1)
        following = ((shards[going] + 1) * jump).astype(np.int64)
        stays = following >= n_shards
        going, key = going[~stays], key[~stays]
        shards[going] = following[~stays]
    return shards


def _mixed(ids: Ids) -> npt.NDArray[np.uint64]:
    """Scatter ids, as consecutive ones are the rule (the end of SplitMix64)."""
    key = ids.astype(np.uint64)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = key ^ (key >> np.uint64(31))
    return mixed
