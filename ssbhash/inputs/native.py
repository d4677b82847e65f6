"""The C++ extension, for tensors that it can work on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ssbhash.engines import native_module


def native_for(tensor: Tensor) -> Any:
    """Give the extension where it is built and the tensor lies on the CPU, else None."""
    return native_module() if tensor.device.type == "cpu" else None
