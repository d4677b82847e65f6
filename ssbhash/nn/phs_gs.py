"""PHS-GS: pairwise supervised hashing with a Bernoulli VAE.

Dadaneh, Boluki, Yin, Zhou, Qian, *Pairwise Supervised Hashing with Bernoulli
Variational Auto-Encoder and Self-Control Gradient Estimator*, UAI 2020.

This is the form that Nanculef et al. (arXiv 2007.08799) compare with. Samples are binary
Concrete (Gumbel). A hidden label is the zero vector, so every pair with a hidden label is
taken for dissimilar, even an item with itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssbhash.inputs import Batch
from ssbhash.nn import losses
from ssbhash.nn.autoencoder import Shape, Terms, TrainingBatch, Weights, weighted
from ssbhash.nn.bernoulli_vae import BernoulliVAENetwork
from ssbhash.nn.layers import Linear
from ssbhash.nn.relaxations import relax


class PHSGSNetwork(BernoulliVAENetwork):
    """reconstruction + beta KL + alpha (gamma point + pair); S from the true labels."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.classifier = Linear(shape.n_hidden_units, shape.n_classes, generator)

    def term_weights(self) -> dict[str, float]:
        """Return the weight of each term in the loss."""
        supervised = {"point": self.weights.alpha * self.weights.gamma, "pair": self.weights.alpha}
        return super().term_weights() | supervised

    def class_scores(self, x: Batch) -> Tensor:
        """Compute the scores of the classifier on the last hidden layer."""
        return self.encoder.project(x, self.classifier)

    def _heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits [m, B] and class scores [m, C] by one product, faster than by two."""
        heads = self.to_logits, self.classifier
        weight = torch.cat([x.weight for x in heads], 1)
        bias = torch.cat([x.bias for x in heads])
        both = torch.addmm(bias, hidden, weight).float()
        logits, scores = torch.split(both, [self.shape.n_bits, self.shape.n_classes], 1)
        return logits, scores

    def similarity(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Compute S [m, m] of the pair term."""
        return losses.similarity(labels, self.shape.multilabel)

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss of one batch."""
        assert batch.labels is not None
        assert batch.known is not None
        hidden = self.encoder(batch.x)
        logits, scores = self._heads(hidden)
        code = relax(logits, tau=self.weights.temperature, seed=generator)
        similar = self.similarity(scores, batch.labels)
        terms = {
            "reconstruction": self.reconstruction(code, batch.target),
            "kl": losses.bernoulli_kl(logits),
            "point": losses.point_loss(scores, batch.labels, batch.known, self.shape.multilabel),
            "pair": losses.pair_loss(code, similar) * batch.pair_scale,
        }
        return weighted(terms, self.term_weights())
