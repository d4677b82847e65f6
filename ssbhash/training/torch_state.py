"""Keeps the caller's global torch settings apart from our computations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

_IMPORTED_BY = os.getpid()


@contextmanager
def own_torch_state() -> Iterator[None]:
    """Run with the torch settings that our networks expect; then put the caller's back.

    Inside, gradients are on, even under `torch.no_grad` and `torch.inference_mode`. New
    tensors are float32 on the CPU, whatever the caller's defaults. An outer autocast is off.
    Matrix products have full precision: a query and an item, encoded in two processes, must
    get the same code.

    A forked child keeps torch to one thread from here on. OpenMP's threads do not survive a
    fork, and the child would wait for them forever.
    """
    if os.getpid() != _IMPORTED_BY:
        torch.set_num_threads(1)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            # Only if needed, because this context slows down every operation.
            nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"),
            # Without the cache: only the outermost autocast clears it, so that an inner one would
            # go on with the weights of the first step.
            torch.autocast("cpu", enabled=False, cache_enabled=False),
            torch.autocast("cuda", enabled=False, cache_enabled=False),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
