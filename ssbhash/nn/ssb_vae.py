"""SSB-VAE: a Bernoulli VAE supervised by its own predictions.

Nanculef, Mena, Macaluso, Lodi, Sartori, *Self-Supervised Bernoulli Autoencoders for
Semi-Supervised Hashing*, arXiv 2007.08799. It is PHS-GS with the model's own class
probabilities in the pair term, in place of labels. So unlabelled pairs teach too. The
gradient flows through the probabilities, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssbhash.nn import losses
from ssbhash.nn.phs_gs import PHSGSNetwork


class SSBVAENetwork(PHSGSNetwork):
    """reconstruction + beta KL + alpha (gamma point + pair); S from the predictions."""

    def similarity(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Compute S [m, m] of the pair term, from the classifier's probabilities."""
        multilabel = self.shape.multilabel
        probabilities = torch.sigmoid(scores) if multilabel else torch.softmax(scores, 1)
        return losses.similarity(probabilities, multilabel)
