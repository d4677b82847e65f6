"""Base of every network: its sizes, its batches, an encoder and a linear decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssbhash.inputs import Batch, SparseBatch
from ssbhash.nn import losses
from ssbhash.nn.layers import Decoder, Encoder, EncoderFactory, OwnEncoder

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a network, and what its decoder models.

    `n_targets` is 0 if nothing is reconstructed.
    """

    n_features: int
    n_targets: int
    n_bits: int
    n_classes: int = 0
    n_hidden_units: int = 500
    multilabel: bool = False
    reconstruction: str = "multinomial"


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms, temperature and dropout.

    `alpha`, `beta` and `gamma` are those of the paper's loss. `encoder` makes another encoder.
    """

    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    temperature: float = 2 / 3
    contrast: float = 0.0
    dropout: float = 0.0
    encoder: EncoderFactory | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """Items of one step.

    Attributes
    ----------
    x, target
        Features, and what the decoder reconstructs.
    labels, known
        Labels [m, C] of 0 and 1, and which items [m] have one. Hidden labels are 0, or class
        probabilities that were estimated before the training.
    n_in_batch
        With several processes: items of the whole batch; these are this process's share.
    n_pairs
        The first `n_pairs` items are followed by a neighbour of each, then by others.
    """

    x: Batch
    target: Batch
    labels: Tensor | None = None
    known: Tensor | None = None
    n_in_batch: int | None = None
    n_pairs: int = 0

    @property
    def pair_scale(self) -> float:
        """Number of pairs in the whole batch over that among these items."""
        n_items = len(self.x)
        return 1.0 if self.n_in_batch is None else (self.n_in_batch / n_items) ** 2


class Autoencoder(nn.Module):
    """Base of every network: an encoder and a linear decoder."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.weights = shape, weights
        sizes = shape.n_features, shape.n_hidden_units
        self.encoder: Encoder | OwnEncoder = (
            Encoder(*sizes, generator)
            if weights.encoder is None
            else OwnEncoder(weights.encoder, *sizes, generator)
        )
        if shape.n_targets:
            self.decoder = Decoder(shape.n_bits, shape.n_targets, generator)

    def begin(self) -> None:
        """Prepare for a training. Called once, before the first step."""

    def averages(self) -> dict[str, Tensor]:
        """Return averages over steps, by the name of their parameter. The optimiser moves them."""
        return {}

    def average_share(self) -> float:
        """Return the share of the way to the weights that averages move. Called once a step."""
        return 0.0

    def finish(self) -> None:
        """Drop what only training needs. Called once, after the last step."""

    def row_weight(self) -> nn.Parameter | None:
        """Return the weight [n_features, width] that multiplies sparse features, if one does.

        A batch uses few of its rows, and the optimiser updates only these.
        """
        return self.encoder.first.weight if isinstance(self.encoder, Encoder) else None

    def code_logits(self, x: Batch) -> Tensor:
        """Compute the real numbers [m, n_bits] whose signs are the code."""
        raise NotImplementedError

    def class_scores(self, x: Batch) -> Tensor:
        """Compute the classifier's output [m, n_classes] before softmax or sigmoid."""
        raise NotImplementedError

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss, and their weighted sum under "loss"."""
        raise NotImplementedError

    def statistics(self) -> Iterator[Tensor]:
        """Return the running means and variances of the batch normalisation."""
        return (buffer for name, buffer in self.named_buffers() if "running_" in name)

    def reconstruction(self, code: Tensor, target: Batch) -> Tensor:
        """Compute the negative log-likelihood of the target under the decoder, mean over items."""
        weight, bias = self.decoder.weight, self.decoder.bias
        if self.shape.reconstruction == "multinomial":
            return losses.multinomial_reconstruction(code, weight, bias, target)
        dense = target.dense() if isinstance(target, SparseBatch) else target
        return losses.gaussian_reconstruction(code, weight, bias, dense)


def weighted(terms: Terms, weights: dict[str, float]) -> Terms:
    """Add the weighted sum as "loss"."""
    loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    return terms | {"loss": loss}
