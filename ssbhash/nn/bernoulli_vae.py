"""Bernoulli variational autoencoder with binary Concrete samples, without labels.

It is the unsupervised part of SSB-VAE (Nanculef et al., arXiv 2007.08799). The relaxation
is from Maddison et al. and Jang et al. (ICLR 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssbhash.inputs import Batch
from ssbhash.nn import losses
from ssbhash.nn.autoencoder import Autoencoder, Shape, Terms, TrainingBatch, Weights, weighted
from ssbhash.nn.layers import Linear
from ssbhash.nn.relaxations import relax


class BernoulliVAENetwork(Autoencoder):
    """reconstruction + beta KL."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.to_logits = Linear(shape.n_hidden_units, shape.n_bits, generator)

    def term_weights(self) -> dict[str, float]:
        """Return the weight of each term in the loss."""
        return {"reconstruction": 1.0, "kl": self.weights.beta}

    def code_logits(self, x: Batch) -> Tensor:
        """Compute the logits of the Bernoulli posterior."""
        return self.encoder.project(x, self.to_logits)

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss of one batch."""
        logits = self.to_logits(self.encoder(batch.x)).float()
        code = relax(logits, tau=self.weights.temperature, seed=generator)
        terms = {
            "reconstruction": self.reconstruction(code, batch.target),
            "kl": losses.bernoulli_kl(logits),
        }
        return weighted(terms, self.term_weights())
