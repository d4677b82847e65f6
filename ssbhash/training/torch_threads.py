"""How many threads torch and BLAS use while something is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

# Operations of a matrix product that takes about two milliseconds. After a product the threads of
# OpenMP wait for the next one in a busy loop. With batches of 100 and 500 units two threads took
# twice the CPU time of one, and hardly less wall time. Beside other programs it is worse: each
# product waits until its second thread gets a core. A default SSB-VAE of 1,597 digits then took 73 s
# with two threads and 10 s with one (64 and 8.5 CPU s).
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
