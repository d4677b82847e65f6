"""The kernels in torch, for any device and dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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

BETA1, BETA2 = 0.9, 0.999


def sum_rows(ids: Tensor, values: Tensor, starts: Tensor, matrix: Tensor) -> Tensor:
    if len(ids) == 0:  # embedding_bag refuses it
        return matrix.new_zeros(len(starts), matrix.shape[1])
    return F.embedding_bag(ids, matrix, starts, mode="sum", per_sample_weights=values)


def dropped(x: Tensor, dropout: Dropout | None) -> Tensor:
    if dropout is None:
        return x
    keep = dropout.bytes >= dropout.threshold
    return x * keep.to(x.dtype).mul_(dropout.scale)


def relu_norm(
    product: Tensor, bias: Tensor, norm: Norm, dropout: Dropout | None
) -> tuple[Tensor, Rectified]:
    values = torch.relu(product + bias)
    running = norm.running_mean, norm.running_variance
    out, mean, inverse = torch.native_batch_norm(
        values, norm.scale, norm.shift, *running, True, norm.momentum, norm.eps
    )
    return dropped(out, dropout), Rectified(product, bias, mean, inverse)


def relu_norm_backward(
    grad: Tensor, saved: Rectified, scale: Tensor, dropout: Dropout | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    backward = torch.ops.aten.native_batch_norm_backward
    statistics = None, None, saved.mean, saved.inverse
    rectified = torch.relu(saved.product + saved.bias)
    values, by_scale, by_shift = backward(
        dropped(grad, dropout), rectified, scale, *statistics, True, 0.0, [True, True, True]
    )
    product = values * (rectified > 0)
    return product, product.sum(0), by_scale, by_shift


def softmax_regression(
    code: Tensor, weight: Tensor, bias: Tensor, target: Nonzeros, log_floor: float
) -> SoftmaxLoss:
    # exp(logits), e [n, n_targets], is the only large array. With s_i = (sum_d t_id) / (sum_d e_id)
    # the gradient of logit (i, d) is s_i e_id - t_id. So each gradient is a product with e, with s
    # applied to the small matrix, minus a product with the sparse target.
    n, rows, columns = len(code), target.rows, target.columns
    logits = torch.addmm(bias, code, weight.t())
    hits = logits[rows, columns]
    top = logits.amax(1)
    exp = logits.sub_(top[:, None]).exp_()
    total = exp.sum(1)
    log_p = hits - (total.log() + top)[rows]
    loss = -(target.values * log_p.clamp_min(log_floor)).sum() / n
    values = target.values * (log_p > log_floor) / n
    share = (bias.new_zeros(n).index_add_(0, rows, values) / total)[:, None]
    grad_code = (exp @ weight).mul_(share)
    grad_weight = exp.t() @ (code * share)
    grad_bias = share.squeeze(1) @ exp
    grad_code.index_add_(0, rows, weight[columns] * values[:, None], alpha=-1)
    grad_weight.index_add_(0, columns, code[rows] * values[:, None], alpha=-1)
    grad_bias.index_add_(0, columns, values, alpha=-1)
    return SoftmaxLoss(loss, grad_code, grad_weight, grad_bias)


def class_and_item(outputs: Tensor, given: ClassAndItem) -> ClassAndItemLoss:
    n_pairs, first = given.n_pairs, given.target.shape[1]
    each, slope = cross_entropy(outputs[:, :first], given.target, given.multilabel)
    each *= given.share
    of_pairs, by_embedding = contrast(outputs[: 2 * n_pairs, first:], given.scale, given.least)
    gradient = torch.zeros_like(outputs)
    torch.mul(slope, given.share[:, None], out=gradient[:, :first])
    torch.mul(by_embedding, given.contrast_weight, out=gradient[: 2 * n_pairs, first:])
    classes, labelled = each[:n_pairs].sum(), each[2 * n_pairs :].sum()
    loss = classes + given.contrast_weight * of_pairs + labelled
    return ClassAndItemLoss(loss, classes, of_pairs, labelled, gradient)


def cross_entropy(scores: Tensor, belief: Tensor, multilabel: bool) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of each item, and its derivative by the scores.

    Parameters
    ----------
    scores
        [m, C], before softmax (or sigmoid where `multilabel`).
    belief
        Class probabilities [m, C].
    multilabel
        Whether classes do not exclude each other; else probabilities of an item have the sum 1.
    """
    if multilabel:
        each = F.binary_cross_entropy_with_logits(scores, belief, reduction="none").sum(1)
        return each, torch.sigmoid(scores) - belief
    shifted = scores - scores.amax(1, keepdim=True)
    exp = shifted.exp()
    total = exp.sum(1, keepdim=True)
    each = total.squeeze(1).log() - (belief * shifted).sum(1)
    return each, exp.div_(total).sub_(belief)


def contrast(rows: Tensor, scale: float, least: float) -> tuple[Tensor, Tensor]:
    """Compute the mean cross-entropy of each item's neighbour, and of each neighbour's item.

    Parameters
    ----------
    rows
        [2 n, width]: n items, then the neighbour of each. Only their directions matter.
    scale, least
        As in `ClassAndItem`.

    Returns
    -------
    loss, gradient
        [] and [2 n, width].
    """
    n = len(rows) // 2
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(least)
    # The rows at one length, such that their products are the scores.
    factor = length.reciprocal_().mul_(math.sqrt(scale))
    scaled = rows * factor
    items, neighbours = scaled[:n], scaled[n:]
    # No score is above scale, so no exponential is too large.
    exp = torch.mm(items, neighbours.t()).exp_()
    by_item, by_neighbour = exp.sum(1, keepdim=True), exp.sum(0)
    total = (by_item.log().sum() + by_neighbour.log().sum()) / 2
    total -= torch.dot(items.reshape(-1), neighbours.reshape(-1))
    # The derivative of 2 * total by the scores, then by the scaled rows.
    slope = exp.mul_(by_item.reciprocal_() + by_neighbour.reciprocal_())
    slope.diagonal().sub_(2)
    gradient = torch.empty_like(scaled)
    torch.mm(slope, neighbours, out=gradient[:n])
    torch.mm(slope.t(), items, out=gradient[n:])
    # A change along a row does not change its direction.
    along = torch.linalg.vecdot(scaled, gradient)[:, None]
    gradient.addcmul_(scaled, along, value=-1 / scale)
    return total / n, gradient.mul_(factor.div_(2 * n))


@torch.no_grad()
def catch_up(state: AdamState, rows: Tensor, missed: Missed) -> None:
    step, mean_decay, square_decay = (x[:, None] for x in missed)
    mean, square = state.mean[rows], state.square[rows]
    root = square.sqrt().add_(state.eps)
    state.weight.index_add_(0, rows, step * mean / root, alpha=-1)
    state.mean.index_copy_(0, rows, mean * mean_decay)
    state.square.index_copy_(0, rows, square * square_decay)


@torch.no_grad()
def adam_rows(state: AdamState, rows: Tensor, gradient: Tensor, step: float) -> None:
    weight, mean, square = state.weight[rows], state.mean[rows], state.square[rows]
    _update(weight, mean, square, gradient, step, state.eps)
    state.weight.index_copy_(0, rows, weight)
    state.mean.index_copy_(0, rows, mean)
    state.square.index_copy_(0, rows, square)


@torch.no_grad()
def adam(state: AdamState, gradients: list[Tensor], step: float, share: float) -> None:
    gradient = torch.cat(gradients)
    _update(state.weight, state.mean, state.square, gradient, step, state.eps)
    if state.average is not None:
        state.average.lerp_(state.weight, share)


def _update(
    weight: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, step: float, eps: float
) -> None:
    mean.lerp_(gradient, 1 - BETA1)
    square.lerp_(gradient.square(), 1 - BETA2)
    weight.addcdiv_(mean, square.sqrt().add_(eps), value=-step)
