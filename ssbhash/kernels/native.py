"""The kernels in C++ (`csrc/core/training`), for float32 on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssbhash.engines import native_module
from ssbhash.kernels.types import AdamState, Missed, Nonzeros, Norm, Rectified, SoftmaxLoss

_core: Any = native_module()


def sum_rows(ids: Tensor, values: Tensor, starts: Tensor, matrix: Tensor) -> Tensor:
    out = matrix.new_empty(len(starts), matrix.shape[1])
    arrays = map(_array, (ids, values, starts, matrix, out))
    _core.sparse_product(*arrays, torch.get_num_threads())
    return out


def relu_norm(product: Tensor, bias: Tensor, norm: Norm) -> tuple[Tensor, Rectified]:
    rectified, out = torch.empty_like(product), torch.empty_like(product)
    moments = product.new_empty(2, product.shape[1])
    arrays = map(_array, (product, bias, norm.scale, norm.shift))
    written = map(_array, (rectified, out, moments, norm.running_mean, norm.running_variance))
    _core.relu_norm(*arrays, norm.eps, norm.momentum, *written, torch.get_num_threads())
    return out, Rectified(rectified, moments[0], moments[1])


def relu_norm_backward(
    grad: Tensor, saved: Rectified, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    product = torch.empty_like(saved.values)
    bias, by_scale, by_shift = (torch.empty_like(scale) for _ in range(3))
    moments = torch.stack([saved.mean, saved.inverse])
    arrays = map(_array, (grad.contiguous(), saved.values, moments, scale))
    written = map(_array, (product, bias, by_scale, by_shift))
    _core.relu_norm_backward(*arrays, *written, torch.get_num_threads())
    return product, bias, by_scale, by_shift


_softmax: Any = None if _core is None else _core.SoftmaxRegression()


def softmax_regression(
    code: Tensor, weight: Tensor, bias: Tensor, target: Nonzeros, log_floor: float
) -> SoftmaxLoss:
    by_code, by_weight, by_bias = (torch.empty_like(x) for x in (code, weight, bias))
    arrays = map(_array, (code, weight, bias, target.columns, target.values, target.starts))
    threads = torch.get_num_threads()
    loss = _softmax.forward(*arrays, log_floor, _array(by_code), threads)
    _softmax.backward(1.0, _array(by_weight), _array(by_bias), threads)
    return SoftmaxLoss(code.new_tensor(loss), by_code, by_weight, by_bias)


def catch_up(state: AdamState, rows: Tensor, missed: Missed) -> None:
    arrays = map(_array, (state.weight, state.mean, state.square, rows, *missed))
    _core.catch_up(*arrays, state.eps, torch.get_num_threads())


def adam_rows(state: AdamState, rows: Tensor, gradient: Tensor, step: float) -> None:
    each, ones = torch.arange(len(rows)), torch.ones(len(rows))
    arrays = (state.weight, state.mean, state.square, rows, ones, ones, each, ones, each, gradient)
    _core.adam_rows(*map(_array, arrays), step, state.eps, torch.get_num_threads())


def adam(state: AdamState, gradients: list[Tensor], step: float) -> None:
    arrays = map(_array, (state.weight, state.mean, state.square))
    flat = [_array(x) for x in gradients]
    _core.adam_flat(*arrays, flat, step, state.eps, torch.get_num_threads())


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
