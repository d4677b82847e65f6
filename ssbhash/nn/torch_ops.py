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

`logits` are [n, n_bits], or [n_bits] for one row. The draws are those of `ssbhash.sample` and
`ssbhash.sample_relaxed`, on every device. torch's integers are signed, so a seed must be below
2**63 here. Under `torch.func.vmap` each item of the batch draws the same random numbers.

On the CPU a logit that is not finite raises an error. Training calls the last two operators in
each step, so on a CUDA device they do not wait for a check: they return NaN for such a logit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function

import ssbhash
from ssbhash.arrays import unpacked_tensor
from ssbhash.engines import get


def _stays_on_device(logits: Tensor) -> bool:
    return logits.is_cuda


def _cuda() -> Any:
    """Return the cuda engine, which has what other engines lack: draws that do not wait."""
    return get("cuda")


def _sample_relaxed(logits: Tensor, seed: int, tau: float, first_row: int = 0) -> Tensor:
    relaxed: Tensor
    if _stays_on_device(logits):
        rows = logits.detach().reshape(-1, logits.shape[-1])
        relaxed = _cuda().relaxed_unchecked(rows, tau, seed, first_row)[0].view(logits.shape)
    else:
        relaxed = ssbhash.sample_relaxed(logits, seed, tau=tau, first_row=first_row)
    return relaxed.to(logits.dtype)


def _keep_relaxed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.tau = inputs[2]


def _relaxed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (relaxed,) = ctx.saved_tensors
    slope: Tensor = torch.ops.aten.sigmoid_backward(grad, relaxed)
    return slope.div_(ctx.tau), None, None, None


def _sample_bits(logits: Tensor, seed: int, first_row: int = 0) -> Tensor:
    if _stays_on_device(logits):
        rows = logits.detach().reshape(-1, logits.shape[-1])
        codes, _ = _cuda().sample_unchecked(rows, seed, first_row)
        drawn = unpacked_tensor(codes[0], logits.shape[-1]).to(logits.dtype)
        return torch.where(rows.isfinite(), drawn, torch.nan).view(logits.shape)
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
    _check_shape(logits)
    shape = (*logits.shape[:-1], (logits.shape[-1] + 7) // 8)
    return logits.new_empty(shape, dtype=torch.uint8)


def _check_shape(logits: Tensor) -> None:
    if logits.ndim not in (1, 2):
        shape = tuple(logits.shape)
        raise ValueError(f"logits must have shape [n, n_bits] or [n_bits], got {shape}")


def _like(logits: Tensor, *_: object) -> Tensor:
    _check_shape(logits)
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _sample(logits: Tensor, seed: int, first_row: int = 0) -> Tensor:
    codes: Tensor = ssbhash.sample(logits, seed, first_row=first_row)
    return codes


def _binarize(logits: Tensor, threshold: float = 0.0) -> Tensor:
    codes: Tensor = ssbhash.binarize(logits, threshold)
    return codes


# Defined by hand: `torch.library.custom_op` takes four times as long a call, and its autograd
# has no setup_context, which torch.func asks for.
_library: Any = torch.library.Library("ssbhash", "DEF")  # type: ignore[no-untyped-call]


def _define(name: str, schema: str, kernel: Callable[..., Tensor], fake: Any) -> Any:
    """Define an operator for every device; under `vmap` it takes the items one by one."""
    _library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"ssbhash::{name}", fake, lib=_library)
    operator = getattr(torch.ops.ssbhash, name).default
    torch.library.register_vmap(f"ssbhash::{name}", _each_of_batch(operator), lib=_library)
    return operator


def _each_of_batch(call: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: tuple[Any, ...], logits: Tensor, *rest: Any) -> tuple[Tensor, int]:
        items = logits.unbind(in_dims[0])
        return torch.stack([call(item, *rest) for item in items]), 0

    return rule


def _differentiate(name: str, operator: Any, keep: Any, backward: Any) -> None:
    """Register the derivative of an operator."""

    def forward(*inputs: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            result: Tensor = operator(*inputs)
        return result

    methods = {"forward": forward, "setup_context": keep, "backward": backward}
    static = {key: staticmethod(method) for key, method in methods.items()}
    function: Any = type(name, (torch.autograd.Function,), static)

    def apply(*inputs: Any) -> Tensor:
        # torch.func has already descended to the level of this kernel; Function.apply would
        # descend once more.
        with enable_single_level_autograd_function():
            result: Tensor = super(torch.autograd.Function, function).apply(*inputs)
        return result

    _library.impl(name, apply, "Autograd")


_DRAW = "(Tensor logits, int seed, int first_row=0) -> Tensor"
sample = _define("sample", _DRAW, _sample, _packed_like)
binarize = _define(
    "binarize", "(Tensor logits, float threshold=0.0) -> Tensor", _binarize, _packed_like
)
sample_relaxed = _define(
    "sample_relaxed",
    "(Tensor logits, int seed, float tau, int first_row=0) -> Tensor",
    _sample_relaxed,
    _like,
)
sample_bits = _define("sample_bits", _DRAW, _sample_bits, _like)
_differentiate("sample_relaxed", sample_relaxed, _keep_relaxed, _relaxed_backward)
_differentiate("sample_bits", sample_bits, _keep_logits, _straight_through)
