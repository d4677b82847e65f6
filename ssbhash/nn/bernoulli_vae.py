"""Bernoulli variational autoencoder with binary-Concrete samples: no labels.

The unsupervised part of SSB-VAE (Nanculef et al., arXiv 2007.08799); the relaxation
is from Maddison et al. and Jang et al. (ICLR 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssbhash.inputs import Batch, SparseBatch
from ssbhash.nn import losses
from ssbhash.nn.layers import Decoder, Encoder, Linear
from ssbhash.nn.relaxations import relax

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a network, and what its decoder models."""

    n_features: int
    n_targets: int
    n_bits: int
    n_classes: int = 0
    n_hidden_units: int = 500
    multilabel: bool = False
    reconstruction: str = "multinomial"


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms, and what else a network has to be told.

    `alpha`, `beta` and `gamma` are the paper's; the terms of the self-taught network have
    weights of their own names.
    """

    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    temperature: float = 2 / 3
    reconstruction: float = 1.0
    point: float = 0.0
    pair: float = 0.0
    codeword: float = 0.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Items:
    """One batch: features, reconstruction target, labels [m, C] and which are known [m].

    With several processes it is this one's share of a batch of `n_in_batch` items.
    """

    x: Batch
    target: Batch
    labels: Tensor | None = None
    known: Tensor | None = None
    n_in_batch: int | None = None

    @property
    def pair_scale(self) -> float:
        """All pairs of the batch over those among these items, a share of it."""
        n_items = len(self.x)
        return 1.0 if self.n_in_batch is None else (self.n_in_batch / n_items) ** 2


class Autoencoder(nn.Module):
    """What every method has: an encoder and a linear decoder."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.weights = shape, weights
        self.encoder = Encoder(shape.n_features, shape.n_hidden_units, generator)
        self.decoder_memory: losses.DecoderMemory | None = None
        self.decoder = Decoder(shape.n_bits, shape.n_targets, generator)

    def begin(self) -> None:
        """Prepare for a training."""

    def stepped(self) -> None:
        """Follow a step of the optimiser."""

    def finish(self) -> None:
        """Drop what only a training needs."""

    def code_logits(self, x: Batch) -> Tensor:
        """Real numbers [m, n_bits] whose sign is the code."""
        raise NotImplementedError

    def class_scores(self, x: Batch) -> Tensor:
        """Classifier's output [m, n_classes] before softmax or sigmoid."""
        raise NotImplementedError

    def terms(self, items: Items, generator: torch.Generator) -> Terms:
        """Terms of the loss, and their weighted sum under "loss"."""
        raise NotImplementedError

    def statistics(self) -> Iterator[Tensor]:
        """Give the running means and variances of the batch normalisation."""
        return (buffer for name, buffer in self.named_buffers() if "running_" in name)

    def reconstruction(self, code: Tensor, target: Batch) -> Tensor:
        """Negative log-likelihood of the target under the decoder, mean over items."""
        weight, bias = self.decoder.weight, self.decoder.bias
        if self.shape.reconstruction == "multinomial":
            memory = self.decoder_memory = self.decoder_memory or losses.DecoderMemory(weight)
            return losses.multinomial_reconstruction(code, weight, bias, target, memory)
        dense = target.dense() if isinstance(target, SparseBatch) else target
        return losses.gaussian_reconstruction(code, weight, bias, dense)


class BernoulliVAENetwork(Autoencoder):
    """reconstruction + beta KL."""

    # Whether nn/fused.py has the step; and what tells which pairs of items are similar.
    written_out = True
    pairs_by_prediction = False

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.to_logits = Linear(shape.n_hidden_units, shape.n_bits, generator)

    def heads(self) -> list[Linear]:
        """Give what sits on the last hidden layer, the logits first."""
        return [self.to_logits]

    def term_weights(self) -> dict[str, float]:
        """Weight of each term in the loss."""
        return {"reconstruction": 1.0, "kl": self.weights.beta}

    def code_logits(self, x: Batch) -> Tensor:
        """Logits of the Bernoulli posterior."""
        return self.encoder.project(x, self.to_logits)

    def terms(self, items: Items, generator: torch.Generator) -> Terms:
        """Terms of the loss of one batch."""
        logits = self.to_logits(self.encoder(items.x)).float()
        code = relax(logits, tau=self.weights.temperature, seed=generator)
        terms = {
            "reconstruction": self.reconstruction(code, items.target),
            "kl": losses.bernoulli_kl(logits),
        }
        return weighted(terms, self.term_weights())


def weighted(terms: Terms, weights: dict[str, float]) -> Terms:
    """Add the weighted sum as "loss"."""
    loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    return terms | {"loss": loss}
