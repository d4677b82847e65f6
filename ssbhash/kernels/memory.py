"""Memory in large pages, for what is read at random places.

numpy asks the kernel for large pages where an array has 4 MiB or more, torch does not: with
4 KiB pages each row of a matrix of 20 MB is a miss in the TLB.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def in_large_pages(tensor: Tensor) -> Tensor:
    """Copy a tensor of the CPU to large pages; others stay where they are."""
    if not tensor.is_cpu or tensor.dtype != torch.float32:
        return tensor
    return torch.from_numpy(np.empty(tensor.shape, np.float32)).copy_(tensor.detach())
