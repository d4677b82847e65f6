"""Sampling as torch operators: `torch.ops.ssbhash.*`, which `torch.compile` keeps whole.

sample(logits, seed, first_row)
    Packed codes uint8 [n, n_bytes]; no gradient.
binarize(logits, threshold)
    Packed codes uint8 [n, n_bytes]; no gradient.
sample_relaxed(logits, seed, tau, first_row)
    Relaxed bits like `logits`, with their derivative.
sample_bits(logits, seed, first_row)
    The bits of `sample` as 0.0 and 1.0 like `logits`, with the straight-through
    derivative, that of sigmoid(logits).

The draws are those of `ssbhash.sample` and `ssbhash.sample_relaxed`, on every device.
torch counts a seed as a signed number, so it must be below 2**63 here.
"""

from typing import Any

import torch
from torch import Tensor

import ssbhash


def _sample_relaxed(logits: Tensor, seed: int, tau: float, first_row: int = 0) -> Tensor:
    relaxed: Tensor = ssbhash.sample_relaxed(logits, seed, tau=tau, first_row=first_row)
    return relaxed.to(logits.dtype)


def _keep_relaxed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.tau = inputs[2]


def _relaxed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (relaxed,) = ctx.saved_tensors
    slope: Tensor = torch.ops.aten.sigmoid_backward(grad, relaxed)
    return slope.div_(ctx.tau), None, None, None


def _sample_bits(logits: Tensor, seed: int, first_row: int = 0) -> Tensor:
    codes = ssbhash.sample(logits, seed, first_row=first_row)
    bits: Tensor = ssbhash.unpack(codes, logits.shape[-1])
    return bits.to(logits.dtype)


def _keep_logits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (logits,) = ctx.saved_tensors
    slope: Tensor = torch.ops.aten.sigmoid_backward(grad, torch.sigmoid(logits))
    return slope, None, None


def _packed_like(logits: Tensor, *_: object) -> Tensor:
    n, n_bits = logits.shape
    return logits.new_empty((n, (n_bits + 7) // 8), dtype=torch.uint8)


def _like(logits: Tensor, *_: object) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op("ssbhash::sample", mutates_args=())
def sample(logits: Tensor, seed: int, first_row: int = 0) -> Tensor:
    """Draw packed codes."""
    codes: Tensor = ssbhash.sample(logits, seed, first_row=first_row)
    return codes


@torch.library.custom_op("ssbhash::binarize", mutates_args=())
def binarize(logits: Tensor, threshold: float = 0.0) -> Tensor:
    """Threshold logits into packed codes."""
    codes: Tensor = ssbhash.binarize(logits, threshold)
    return codes


_relaxed_operator = torch.library.custom_op(
    "ssbhash::sample_relaxed", _sample_relaxed, mutates_args=()
)
_bits_operator = torch.library.custom_op("ssbhash::sample_bits", _sample_bits, mutates_args=())
sample.register_fake(_packed_like)
binarize.register_fake(_packed_like)
_relaxed_operator.register_fake(_like)
_bits_operator.register_fake(_like)
_relaxed_operator.register_autograd(_relaxed_backward, setup_context=_keep_relaxed)
_bits_operator.register_autograd(_straight_through, setup_context=_keep_logits)


class _SampleRelaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        relaxed = _sample_relaxed(*inputs)
        _keep_relaxed(ctx, inputs, relaxed)
        return relaxed

    backward = staticmethod(_relaxed_backward)


class _SampleBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        bits = _sample_bits(*inputs)
        _keep_logits(ctx, inputs, bits)
        return bits

    backward = staticmethod(_straight_through)


# A custom operator costs some 80 us more a call than an autograd function, as much as
# the draw of a whole batch: it is called only where a compiler traces.


def sample_relaxed(logits: Tensor, seed: int, tau: float, first_row: int = 0) -> Tensor:
    """Draw relaxed bits from the binary Concrete distribution."""
    call: Any = _SampleRelaxed.apply
    if torch.compiler.is_compiling():
        call = _relaxed_operator
    relaxed: Tensor = call(logits, seed, tau, first_row)
    return relaxed


def sample_bits(logits: Tensor, seed: int, first_row: int = 0) -> Tensor:
    """Draw bits as numbers."""
    call: Any = _SampleBits.apply
    if torch.compiler.is_compiling():
        call = _bits_operator
    bits: Tensor = call(logits, seed, first_row)
    return bits
