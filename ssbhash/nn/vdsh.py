"""VDSH and VDSH-S: a Gaussian VAE; its code is the thresholded latent mean.

Chaidaroon and Fang, *Variational Deep Semantic Hashing for Text Documents*,
SIGIR 2017. The code is [mean > 0], as in the experiments of Nanculef et al.; or
[mean > median of the bit over the training items], as in the VDSH paper. The classifier
of VDSH-S reads the sampled latent vector in training, and its mean in prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssbhash.inputs import Batch
from ssbhash.nn import losses
from ssbhash.nn.autoencoder import Autoencoder, Shape, Terms, TrainingBatch, Weights
from ssbhash.nn.layers import Linear


class VDSHNetwork(Autoencoder):
    """reconstruction + beta KL to a standard normal."""

    threshold: Tensor

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.to_mean = Linear(shape.n_hidden_units, shape.n_bits, generator)
        self.to_log_variance = Linear(shape.n_hidden_units, shape.n_bits, generator)
        self.register_buffer("threshold", torch.zeros(shape.n_bits))

    def code_logits(self, x: Batch) -> Tensor:
        """Compute the latent mean minus the threshold of each bit."""
        return self.encoder.project(x, self.to_mean).float() - self.threshold

    def _latent(self, batch: TrainingBatch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        hidden = self.encoder(batch.x)
        mean = self.to_mean(hidden).float()
        log_variance = self.to_log_variance(hidden).float()
        noise = torch.randn(mean.shape, generator=generator, device=generator.device)
        latent = mean + torch.exp(0.5 * log_variance) * noise.to(mean.device)
        return latent, {
            "reconstruction": self.reconstruction(latent, batch.target),
            "kl": losses.gaussian_kl(mean, log_variance),
        }

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss of one batch."""
        _, terms = self._latent(batch, generator)
        terms["loss"] = terms["reconstruction"] + self.weights.beta * terms["kl"]
        return terms


class VDSHSNetwork(VDSHNetwork):
    """reconstruction + beta KL + alpha point."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.classifier = Linear(shape.n_bits, shape.n_classes, generator)

    def class_scores(self, x: Batch) -> Tensor:
        """Compute the scores of the classifier at the latent mean."""
        scores: Tensor = self.classifier(self.encoder.project(x, self.to_mean))
        return scores

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss of one batch."""
        assert batch.labels is not None
        assert batch.known is not None
        latent, terms = self._latent(batch, generator)
        scores = self.classifier(latent).float()
        multilabel = self.shape.multilabel
        terms["point"] = losses.point_loss(scores, batch.labels, batch.known, multilabel)
        unsupervised = terms["reconstruction"] + self.weights.beta * terms["kl"]
        terms["loss"] = unsupervised + self.weights.alpha * terms["point"]
        return terms
