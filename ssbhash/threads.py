"""How many threads to use: what the process may use, unless told otherwise."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from pathlib import Path

from ssbhash.arrays import as_count

_CGROUP, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED = 1 << 30
_chosen: int | None = None


def set_num_threads(n_threads: int | None) -> None:
    """Set what `n_threads=None` means in every function.

    Parameters
    ----------
    n_threads : int or None
        Threads at most, from 1; None for as many as the process may use.

    Raises
    ------
    TypeError, ValueError
        If it is no integer of at least 1.

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

    The first of these that is set: `set_num_threads`; the environment variable
    SSBHASH_NUM_THREADS; the CPUs that the process may use. The last is the smallest of
    CPU affinity, control group quotas and OMP_NUM_THREADS. joblib and others share the
    CPUs among their workers by OMP_NUM_THREADS.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If SSBHASH_NUM_THREADS is no integer of at least 1.

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.get_num_threads() >= 1
    True
    """
    if _chosen is not None:
        return _chosen
    asked = os.environ.get("SSBHASH_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"SSBHASH_NUM_THREADS must be an integer of at least 1, got {asked!r}")
        return int(asked)
    return max(1, min(_affinity(), _quota(_CGROUP, _own_groups(_OWN_GROUPS)), _openmp()))


def resolve(n_threads: int | None) -> int:
    """Check an `n_threads` argument; None means the default."""
    return get_num_threads() if n_threads is None else as_count(n_threads, "n_threads", 1)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _openmp() -> int:
    """Return the threads that OMP_NUM_THREADS allows, the first of a list; nonsense is ignored."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) else _UNLIMITED


@functools.cache
def _own_groups(listing: Path) -> tuple[str, str]:
    """Find the paths of this process's control groups: of version 2, and of version 1's `cpu`."""
    unified = cpu = ""
    with contextlib.suppress(OSError):
        for line in listing.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                unified = path.strip("/")
            elif "cpu" in controllers.split(","):
                cpu = path.strip("/")
    return unified, cpu


@functools.cache
def _quota(cgroup: Path, own: tuple[str, str] = ("", "")) -> int:
    """Return the CPUs that the control groups and those above them grant, rounded up."""
    granted = _UNLIMITED
    for root, path in zip((cgroup, cgroup / "cpu"), own, strict=True):
        # Within a container the path may be that of the host, and not be there.
        group = root / path
        for folder in (group, *group.parents):
            granted = min(granted, _granted(folder))
            if folder == root:
                break
    return granted


def _granted(folder: Path) -> int:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        granted = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such group
        return _UNLIMITED
    return granted if granted > 0 else _UNLIMITED
