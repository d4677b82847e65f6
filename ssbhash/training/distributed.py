"""Training in several processes, started by torchrun. Each takes a share of every batch.

- Losses are means over a batch, so gradients are averaged, weighted by the sizes of the shares.
- The pair term is a sum over pairs. Each process computes it on the pairs within its share, and
  scales it to all pairs of the batch.
- Batch normalisation uses the statistics of each share.

The results are those of one process, up to noise.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from ssbhash.arrays import Ids

# Asked once: torch takes 10 us to answer, and each step asks several times.
AVAILABLE = dist.is_available()


def world_size() -> int:
    """Count the processes of the group; 1 without a group."""
    return dist.get_world_size() if AVAILABLE and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number; 0 without a group."""
    return dist.get_rank() if world_size() > 1 else 0


def share(ids: Ids) -> Ids:
    """Take this process's items of a batch; all items if the batch is too small to share."""
    n = world_size()
    return ids if len(ids) < 2 * n else ids[rank() :: n]


def weight(ids: Ids) -> float:
    """Return the weight of this process's mean in that of the batch `ids`; weights sum to 1."""
    n = world_size()
    return 1 / n if len(ids) < 2 * n else len(share(ids)) / len(ids)


def add_up(tensor: Tensor) -> None:
    """Add a tensor over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)


def average(tensors: Iterable[Tensor]) -> None:
    """Average tensors over all processes, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor.div_(world_size())


def wait() -> None:
    """Wait for the others."""
    if world_size() > 1:
        dist.barrier()


def default_device() -> str:
    """Return the CUDA device of this process, or the CPU without one."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{rank() % torch.cuda.device_count()}" if world_size() > 1 else "cuda"
