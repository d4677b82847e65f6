"""The kernels in C++ (`csrc/core/training`), for float32 on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssbhash.engines import native_module
from ssbhash.kernels.types import (
    AdamState,
    ClassAndItem,
    ClassAndItemLoss,
    Dropout,
    Missed,
    Nonzeros,
    Norm,
    Rectified,
    SoftmaxLoss,
)

_core: Any = native_module()


def sum_rows(ids: Tensor, values: Tensor, starts: Tensor, matrix: Tensor) -> Tensor:
    sums = _core.SparseRows(_array(ids), _array(values), _array(starts))
    return torch.from_numpy(_core.sum_rows(sums, _array(matrix), torch.get_num_threads()))


def dropped(x: Tensor, dropout: Dropout) -> Tensor:
    found = _core.dropped(_array(x), _dropout(dropout), torch.get_num_threads())
    return torch.from_numpy(found)


def relu_norm(
    product: Tensor, bias: Tensor, norm: Norm, dropout: Dropout | None
) -> tuple[Tensor, Rectified]:
    parameters = _core.Norm(
        scale=_array(norm.scale),
        shift=_array(norm.shift),
        running_mean=_array(norm.running_mean),
        running_variance=_array(norm.running_variance),
        eps=norm.eps,
        momentum=norm.momentum,
    )
    threads = torch.get_num_threads()
    drawn = _dropout(dropout)
    out, moments = _core.relu_norm(_array(product), _array(bias), parameters, drawn, threads)
    mean, inverse = map(torch.from_numpy, (moments.mean, moments.inverse))
    return torch.from_numpy(out), Rectified(product, bias, mean, inverse)


def relu_norm_backward(
    grad: Tensor, saved: Rectified, scale: Tensor, dropout: Dropout | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, product, bias, mean, inverse, scale = map(_array, (grad, *saved, scale))
    moments, drawn = _core.Moments(mean, inverse), _dropout(dropout)
    threads = torch.get_num_threads()
    found = _core.relu_norm_backward(
        grad, product, bias, moments, scale, dropout=drawn, n_threads=threads
    )
    gradients = found.product, found.bias, found.scale, found.shift
    by_product, by_bias, by_scale, by_shift = map(torch.from_numpy, gradients)
    return by_product, by_bias, by_scale, by_shift


def softmax_regression(
    code: Tensor, weight: Tensor, bias: Tensor, target: Nonzeros, log_floor: float
) -> SoftmaxLoss:
    decoder = _core.Decoder(_array(weight), _array(bias))
    rows = _core.SparseRows(*map(_array, (target.columns, target.values, target.starts)))
    threads = torch.get_num_threads()
    found = _core.softmax_regression(_array(code), decoder, rows, log_floor, threads)
    gradients = map(torch.from_numpy, (found.code, found.weight, found.bias))
    return SoftmaxLoss(code.new_tensor(found.loss), *gradients)


def class_and_item(outputs: Tensor, given: ClassAndItem) -> ClassAndItemLoss:
    n, first = given.n_pairs, given.target.shape[1]
    items, neighbours = outputs[:n, first:], outputs[n : 2 * n, first:]
    arrays = map(_array, (outputs, torch.mm(items, neighbours.t()), given.target, given.share))
    found = _core.class_and_item(
        *arrays,
        multilabel=given.multilabel,
        scale=given.scale,
        least=given.least,
        contrast_weight=given.contrast_weight,
    )
    gradient, slopes = torch.from_numpy(found.outputs), torch.from_numpy(found.slopes)
    gradient[:n, first:].addmm_(slopes, neighbours)
    gradient[n : 2 * n, first:].addmm_(slopes.t(), items)
    loss = found.class_ + given.contrast_weight * found.contrast + found.labelled
    terms = torch.tensor([loss, found.class_, found.contrast, found.labelled])
    total, classes, contrast, labelled = terms.unbind()
    return ClassAndItemLoss(total, classes, contrast, labelled, gradient)


def catch_up(state: AdamState, rows: Tensor, missed: Missed) -> None:
    _adam(state).catch_up(_array(rows), *map(_array, missed), torch.get_num_threads())


def adam_rows(state: AdamState, rows: Tensor, gradient: Tensor, step: float) -> None:
    _adam(state).step_rows(_array(rows), _array(gradient), step, torch.get_num_threads())


def adam(state: AdamState, gradients: list[Tensor], step: float, share: float) -> None:
    _adam(state).step([_array(x) for x in gradients], step, share, torch.get_num_threads())


def _dropout(dropout: Dropout | None) -> Any:
    if dropout is None:
        return None
    return _core.Dropout(_array(dropout.bytes), dropout.threshold, dropout.scale)


def _adam(state: AdamState) -> Any:
    weight, mean, square = map(_array, (state.weight, state.mean, state.square))
    average = None if state.average is None else _array(state.average)
    return _core.Adam(weight, mean, square, state.eps, average)


def _array(tensor: Tensor) -> Any:
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()
