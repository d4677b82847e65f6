"""How numba's kernels are compiled and run on threads.

Kernels release the GIL and run on a thread pool of the standard library, not
on numba's own threads: those abort on concurrent calls (workqueue) or after a
fork (OpenMP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba

_T = TypeVar("_T")


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call. The result is cached on disk if a folder can be written."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable cache folder
        return numba.njit(nogil=True)(function)


def run(tasks: Sequence[Callable[[], _T]], n_threads: int) -> list[_T]:
    """Call every task, on at most n_threads threads; results in order."""
    if n_threads == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda task: task(), tasks))
