"""Memory in large pages, for arrays that are read in random order.

With pages of 4 KiB each row of a matrix of 20 MB misses the TLB. numpy asks the operating system
for large pages if an array has 4 MiB or more; torch does not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def in_large_pages(tensor: Tensor) -> Tensor:
    """Copy a float32 tensor of the CPU to large pages; return others as they are."""
    if not tensor.is_cpu or tensor.dtype != torch.float32:
        return tensor
    return torch.from_numpy(np.empty(tensor.shape, np.float32)).copy_(tensor.detach())
