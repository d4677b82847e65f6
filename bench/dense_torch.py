"""SSB-VAE in plain torch: dense rows, autograd, torch's own Adam.

This is the peer in `bench/training.py`. It takes the weights of an untrained network of the
library, so that losses and gradients are compared before anything is timed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ssbhash
from ssbhash.inputs.rows import SparseBatch
from ssbhash.nn.autoencoder import TrainingBatch
from ssbhash.nn.ssb_vae import SSBVAENetwork


class DenseSSBVAE(nn.Module):
    """The network and the loss of the paper's SSB-VAE."""

    def __init__(self, network: SSBVAENetwork) -> None:
        super().__init__()
        self.n_bits, self.weights = network.shape.n_bits, network.weights
        self.encoder = nn.Sequential(
            *self._block(network.encoder.first), *self._block(network.encoder.second)
        )
        self.to_logits = self._linear(network.to_logits.weight)
        self.classifier = self._linear(network.classifier.weight)
        self.decoder = self._linear(network.decoder.weight.t())

    @staticmethod
    def _linear(weight: Tensor) -> nn.Linear:  # [n_in, n_out]
        linear = nn.Linear(*weight.shape)
        linear.weight.data.copy_(weight.detach().t())
        linear.bias.data.zero_()
        return linear

    def _block(self, layer: Any) -> tuple[nn.Module, ...]:
        norm = nn.BatchNorm1d(layer.weight.shape[1], eps=1e-3)
        return self._linear(layer.weight), nn.ReLU(), norm

    def loss(
        self, x: Tensor, target: Tensor, labels: Tensor, known: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Compute the mean loss of a batch; `noise` is logistic, [m, n_bits]."""
        hidden = self.encoder(x)
        logits, scores = self.to_logits(hidden), self.classifier(hidden)
        if noise is None:
            u = torch.rand_like(logits)
            noise = torch.log(u) - torch.log1p(-u)
        code = torch.sigmoid((logits + noise) / self.weights.temperature)
        reconstruction = -(target * F.log_softmax(self.decoder(code), 1)).sum(1).mean()
        p = torch.sigmoid(logits)
        kl = (p * logits - F.softplus(logits)).sum(1).mean() + self.n_bits * math.log(2)
        point = -(labels * known[:, None] * F.log_softmax(scores, 1)).sum(1).mean()
        predicted = torch.softmax(scores, 1)
        similar = predicted @ predicted.t()
        distance = (code[:, None] - code).square().sum(2)
        apart = (self.n_bits / 3 - distance).clamp_min(0)
        pair = (similar * distance + (1 - similar) * apart).sum() / self.n_bits
        supervised: Tensor = self.weights.alpha * (self.weights.gamma * point + pair)
        return reconstruction + self.weights.beta * kl + supervised


def dense(items: TrainingBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rows of features, of targets and of labels, and which labels are known."""
    assert isinstance(items.x, SparseBatch)
    assert isinstance(items.target, SparseBatch)
    assert items.labels is not None
    assert items.known is not None
    return items.x.dense(), items.target.dense(), items.labels, items.known


def check_equality(network: SSBVAENetwork, items: TrainingBatch) -> DenseSSBVAE:
    """Compare the loss and gradients of one batch, with the same noise; give the peer."""
    seed, zeros = 1, np.zeros((len(items.x), network.shape.n_bits))
    uniform = ssbhash.sample_relaxed(zeros, seed, tau=1.0).astype(np.float64)
    noise = torch.from_numpy(np.log(uniform) - np.log1p(-uniform)).float()
    peer = DenseSSBVAE(network)
    expected, loss = peer.loss(*dense(items), noise), network.terms(items, seed)["loss"]
    assert torch.allclose(loss, expected, rtol=1e-4), (loss, expected)
    # The first layer is compared by its bias: the gradient of its weight is made of the same
    # numbers, row by row.
    layers = [network.encoder.second, network.to_logits, network.classifier]
    plain = [peer.encoder[3], peer.to_logits, peer.classifier, peer.decoder]
    first, *rest, decoder = torch.autograd.grad(
        loss,
        [network.encoder.first.bias, *(x.weight for x in layers), network.decoder.weight],
    )
    theirs = torch.autograd.grad(expected, [peer.encoder[0].bias, *(x.weight for x in plain)])
    for a, b in zip([first, *(x.t() for x in rest), decoder], theirs, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm(), (a - b).norm() / b.norm()
    return peer
