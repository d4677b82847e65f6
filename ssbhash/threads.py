"""How many threads to use: what the process may use, unless told otherwise."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

from ssbhash.arrays import as_count

_CGROUP = Path("/sys/fs/cgroup")
_chosen: int | None = None


def set_num_threads(n_threads: int | None) -> None:
    """Set the default of every `n_threads=None`; None goes back to all allowed.

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.set_num_threads(1)
    >>> ssbhash.get_num_threads()
    1
    >>> ssbhash.set_num_threads(None)
    """
    global _chosen
    _chosen = None if n_threads is None else as_count(n_threads, "n_threads", 1)


def get_num_threads() -> int:
    """Return the number of threads that `n_threads=None` means.

    In this order: `set_num_threads`, the environment's SSBHASH_NUM_THREADS, and
    what the process may use: its CPU affinity and its control group's quota.

    Raises
    ------
    ValueError
        If SSBHASH_NUM_THREADS is no integer of at least 1.
    """
    if _chosen is not None:
        return _chosen
    asked = os.environ.get("SSBHASH_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"SSBHASH_NUM_THREADS must be an integer of at least 1, got {asked!r}")
        return int(asked)
    return max(1, min(_affinity(), _quota(_CGROUP)))


def resolve(n_threads: int | None) -> int:
    """Check an `n_threads` argument; None means the default."""
    return get_num_threads() if n_threads is None else as_count(n_threads, "n_threads", 1)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _quota(cgroup: Path) -> int:
    """CPUs that the control group grants (versions 2 and 1), rounded up."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            quota, period = "max", "1"
    try:
        granted = math.ceil(int(quota) / int(period))
    except (ValueError, ZeroDivisionError):  # "max"
        granted = 0
    return granted if granted > 0 else 1 << 30
