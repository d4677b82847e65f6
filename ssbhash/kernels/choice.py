"""The one place where C++ or torch is chosen."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ssbhash.engines import native_module
from ssbhash.kernels import native, plain
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


class Kernels(Protocol):
    """The functions of both implementations, `native` and `plain`."""

    def sum_rows(self, ids: Tensor, values: Tensor, starts: Tensor, matrix: Tensor) -> Tensor:
        """Compute weighted sums of rows of a matrix.

        Row i of the result is the sum of values[j] * matrix[ids[j]] for j from starts[i] up to
        starts[i + 1].
        """

    def dropped(self, x: Tensor, dropout: Dropout) -> Tensor:
        """Drop units of `x`."""

    def relu_norm(
        self, product: Tensor, bias: Tensor, norm: Norm, dropout: Dropout | None
    ) -> tuple[Tensor, Rectified]:
        """Normalise max(product + bias, 0) [n, width] by the batch, n >= 2; then drop units."""

    def relu_norm_backward(
        self, grad: Tensor, saved: Rectified, scale: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the gradients of product, bias, scale and shift."""

    def softmax_regression(
        self, code: Tensor, weight: Tensor, bias: Tensor, target: Nonzeros, log_floor: float
    ) -> SoftmaxLoss:
        """Compute the mean over items of -sum_d t_d max(log softmax(code W^T + bias)_d, log_floor).

        Terms at the floor have no gradient.
        """

    def class_and_item(self, outputs: Tensor, given: ClassAndItem) -> ClassAndItemLoss:
        """Compute the loss of class scores beside embeddings [n, C + width].

        It is the sum of the weighted cross-entropies, and `contrast_weight` times the mean
        cross-entropy of each item's neighbour, and of each neighbour's item.
        """

    def catch_up(self, state: AdamState, rows: Tensor, missed: Missed) -> None:
        """Make rows current: take the missed steps, and let the moments decay."""

    def adam_rows(self, state: AdamState, rows: Tensor, gradient: Tensor, step: float) -> None:
        """Take one step of the rows `rows`, whose gradients are `gradient` [n, width]."""

    def adam(self, state: AdamState, gradients: list[Tensor], step: float, share: float) -> None:
        """Take one step of a flat state, given the flat gradients of its consecutive parts.

        Then the average, if there is one, moves by `share` of the way to the weights.
        """


def kernels_for(tensor: Tensor) -> Kernels:
    """Choose the implementation that can work on a tensor.

    Parameters
    ----------
    tensor
        Any of the float tensors of the calculation.

    Returns
    -------
    Kernels
        `native` for float32 on the CPU where the extension is built, else `plain`.
    """
    fits = tensor.is_cpu and tensor.dtype == torch.float32
    return native if fits and native_module() is not None else plain
