"""How many threads torch and BLAS use while something is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

# Operations of a product that takes two milliseconds at most. Threads spin as long again while
# they wait for the next one. Batches of 100 and 500 units took twice the CPU time with two threads,
# and hardly less wall time. On a machine with other work two threads are worse: each product
# waits until the other thread gets a core. A default SSB-VAE of 1,597 digits then took 73 s and 64 s
# of CPU time with two threads, 16 s and 9 s with one.
SMALL_PRODUCT = 2e8


@contextmanager
def as_many_as_pay(n_operations: float) -> Iterator[None]:
    """Run on one thread if products have fewer operations than pay; then put the settings back."""
    if n_operations >= SMALL_PRODUCT:
        yield
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(n_threads)
