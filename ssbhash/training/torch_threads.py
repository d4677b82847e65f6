"""How many threads torch uses while a network trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Operations of the second layer's product. A smaller product takes about a millisecond, and
# OpenMP's threads spin as long again while they wait for the next one. Measured with batches of
# 100 and 500 units: two threads took twice the CPU time of one, and hardly less wall time.
SMALL_PRODUCT = 1e8


def is_small(batch_size: int, n_hidden_units: int) -> bool:
    """Whether the second layer's product is a small one."""
    return 2 * batch_size * n_hidden_units**2 < SMALL_PRODUCT


@contextmanager
def as_many_as_pay(batch_size: int, n_hidden_units: int) -> Iterator[None]:
    """Run on one thread if products are small; then put torch's setting back."""
    n_threads = torch.get_num_threads()
    if is_small(batch_size, n_hidden_units):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
