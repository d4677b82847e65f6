"""Arguments and results of the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Nonzeros:
    """Non-zeros of the rows of a sparse matrix, row by row.

    Parameters
    ----------
    columns, values, rows
        int64, float32 and int64 [n_nonzeros].
    starts
        int64 [n_rows]: where the non-zeros of each row begin.
    """

    columns: Tensor
    values: Tensor
    rows: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Norm:
    """Batch normalisation of `width` columns; the running statistics are updated in place.

    Parameters
    ----------
    scale, shift, running_mean, running_variance
        float32 [width].
    eps
        Added to the variance.
    momentum
        Weight of the batch's statistics in the running ones.
    """

    scale: Tensor
    shift: Tensor
    running_mean: Tensor
    running_variance: Tensor
    eps: float
    momentum: float


@dataclass(frozen=True)
class Dropout:
    """Dropout of the units whose random byte is below `threshold`; the others are scaled up.

    Parameters
    ----------
    bytes
        uint8, of the shape of the units.
    threshold
        1 ... 255.
    """

    bytes: Tensor
    threshold: int

    @property
    def scale(self) -> float:
        """Factor of the units that are kept."""
        return 256 / (256 - self.threshold)


class Rectified(NamedTuple):
    """What the backward pass of `relu_norm` needs.

    `mean` and `inverse` [width] are the mean and 1 / sqrt(variance + eps) of
    max(product + bias, 0).
    """

    product: Tensor
    bias: Tensor
    mean: Tensor
    inverse: Tensor


class SoftmaxLoss(NamedTuple):
    """A loss [] and its gradients: of code [n, n_bits], weight [n_targets, n_bits] and bias."""

    loss: Tensor
    code: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class ClassAndItem:
    """What the loss of the default SSB-VAE needs beside the outputs of its network.

    Parameters
    ----------
    target, share
        Class probabilities [n, C], and the weight of each item's cross-entropy [n].
    n_pairs
        The first n_pairs items are followed by a neighbour of each, then by labelled items.
    multilabel
        Whether classes do not exclude each other.
    scale, least
        Cosines are multiplied by `scale`; embeddings shorter than `least` are taken for zero.
    contrast_weight
        Weight of the contrast in the loss.
    """

    target: Tensor
    share: Tensor
    n_pairs: int
    multilabel: bool
    scale: float
    least: float
    contrast_weight: float


class ClassAndItemLoss(NamedTuple):
    """The loss [], its terms [], and its gradient by the outputs [n, C + width]."""

    loss: Tensor
    classes: Tensor
    contrast: Tensor
    labelled: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class AdamState:
    """Weights and both moments of Adam, of one shape, updated in place.

    `eps` is added to the root of the second moment. `average` is that of the weights over steps.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor
    eps: float
    average: Tensor | None = None


class Missed(NamedTuple):
    """What each of n rows has missed since its last step, float32 [n].

    `step` is the sum of the missed step sizes. The moments are multiplied by the other two.
    """

    step: Tensor
    mean_decay: Tensor
    square_decay: Tensor
