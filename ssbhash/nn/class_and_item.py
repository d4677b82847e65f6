"""The network of the default SSB-VAE: its code tells the class, and the items of a class apart.

One encoder has two heads.

- The classifier learns from known labels, and from beliefs about hidden ones: class
  probabilities of a semi-supervised classifier. (Nanculef et al., arXiv 2007.08799, take the
  network's own.)
- The embedding learns to tell an item's neighbour from the other items of the batch (InfoNCE,
  van den Oord et al., arXiv 1807.03748). This takes the place of an autoencoder's
  reconstruction, and costs a product of the batch with itself. A linear layer leads from the
  features past the encoder, which alone would give close items the same embedding.

    loss = class + labelled + contrast_weight * contrast

    class      mean over items of  trust * cross-entropy(belief, prediction)
    labelled   mean cross-entropy over labelled items that join the batch
    contrast   mean cross-entropy of the neighbour among the batch, by 7 * cosine

A code is the signs of one projection of both: the class probabilities, minus their mean, beside
the embedding, rotated together towards their signs (ITQ, Gong and Lazebnik, CVPR 2011). The
probabilities of a doubtful item are close to their mean. Its code then follows the embedding, so
its neighbourhood decides where the class cannot. The projection is computed once, after the
training.

A share of the class probabilities can come from a logistic regression on the features instead of
the classifier. It is set after the training, too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssbhash.inputs import Batch
from ssbhash.kernels import ClassAndItem, kernels_for
from ssbhash.nn.autoencoder import Autoencoder, Shape, Terms, TrainingBatch, Weights
from ssbhash.nn.layers import Linear, affine

# Factor of the cosines before the softmax over the batch.
CONTRAST_SCALE = 7.0
# Beliefs are weighted by their confidence to this power.
TRUST_POWER = 2.0
# Share that the averaged weights keep at each step; less in the first hundred steps.
AVERAGE_DECAY = 0.99
# Shorter embeddings are taken for zero.
LEAST_LENGTH = 1e-12
# Least width of the embedding.
EMBEDDING_WIDTH = 64
# Least probability of a class once those of a regression are mixed in.
LEAST = 1e-7


class ClassAndItemNetwork(Autoencoder):
    """A classifier and an embedding on one encoder; the result is their average over steps."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        width = max(EMBEDDING_WIDTH, shape.n_bits // 2)
        self.classifier = Linear(shape.n_hidden_units, shape.n_classes, generator)
        self.embedding = Linear(shape.n_hidden_units, width, generator)
        self.skip = Linear(shape.n_features, width, generator)
        n_both = shape.n_classes + width
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(n_both))
        self.projection: Tensor
        self.register_buffer("projection", torch.zeros(n_both, shape.n_bits))
        self.regression_weight: Tensor
        self.register_buffer("regression_weight", torch.zeros(shape.n_features, shape.n_classes))
        self.regression_bias: Tensor
        self.register_buffer("regression_bias", torch.zeros(shape.n_classes))
        self.regression_share: Tensor
        self.register_buffer("regression_share", torch.zeros(()))
        self.average: ClassAndItemNetwork | None = None
        # Statistics of the average, and those that they follow.
        self.averaged: tuple[list[Tensor], list[Tensor]] = [], []
        self.n_steps = 0

    def begin(self) -> None:
        """Start the average of the weights."""
        if self.average is None:
            self.average = ClassAndItemNetwork(self.shape, self.weights, torch.Generator())
            state = self.state_dict()
            self.average.load_state_dict({name: state[name] for name in self.average.state_dict()})
        self.average.eval().requires_grad_(False).to(self.projection.device)
        own = dict(self.encoder.named_buffers())
        averages = {n: b for n, b in self.average.encoder.named_buffers() if b.is_floating_point()}
        self.averaged = list(averages.values()), [own[name] for name in averages]

    def averages(self) -> dict[str, Tensor]:
        """Return the weights of the average by name."""
        return {} if self.average is None else dict(self.average.named_parameters())

    @torch.no_grad()
    def average_share(self) -> float:
        """Return the share, and move the averages of the statistics by it."""
        assert self.average is not None
        self.n_steps += 1
        share = max(1 - AVERAGE_DECAY, 1 / (self.n_steps + 1))
        if self.averaged[0]:  # a user's encoder may have none
            torch._foreach_lerp_(*self.averaged, share)
        return share

    def finish(self) -> None:
        """Keep the average."""
        assert self.average is not None
        self.load_state_dict(self.state_dict() | self.average.state_dict())
        self.average, self.averaged = None, ([], [])

    def train(self, mode: bool = True) -> ClassAndItemNetwork:
        """Set the mode; the average is always in evaluation mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def get_extra_state(self) -> Tensor:
        """Return the steps so far, for a checkpoint."""
        return torch.tensor(self.n_steps)

    def set_extra_state(self, state: Any) -> None:
        """Restore the number of steps."""
        self.n_steps = int(state)

    def class_scores(self, x: Batch) -> Tensor:
        """Compute the scores of the classifier; in a training those of the average."""
        network = self.average or self
        scores = network.encoder.project(x, network.classifier)
        if not self.regression_share:
            return scores
        mixed = self._mixed(x, scores)
        return torch.logit(mixed, LEAST) if self.shape.multilabel else mixed.clamp_min(LEAST).log()

    def both(self, x: Batch) -> Tensor:
        """Compute class probabilities beside the embedding: [m, n_classes + width]."""
        hidden = self.encoder(x)
        classes = self._mixed(x, self.classifier(hidden))
        return torch.cat([classes, self._embedded(x, hidden)], 1)

    def code_logits(self, x: Batch) -> Tensor:
        """Project class probabilities and embedding together."""
        centred = self.both(x) - self.mean
        return affine(centred, self.projection, centred.new_zeros(self.shape.n_bits))

    def _mixed(self, x: Batch, scores: Tensor) -> Tensor:
        """Turn scores into class probabilities, and mix those of the regression in."""
        own = self._probabilities(scores.float())
        if not self.regression_share:
            return own
        assert isinstance(x, Tensor)
        other = affine(x, self.regression_weight, self.regression_bias)
        return own.lerp(self._probabilities(other), self.regression_share)

    def _probabilities(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores) if self.shape.multilabel else torch.softmax(scores, 1)

    def _embedded(self, x: Batch, hidden: Tensor) -> Tensor:
        """Compute the embedding [m, width], of unit length."""
        assert isinstance(x, Tensor)
        return F.normalize((self.embedding(hidden) + self.skip(x)).float(), dim=1)

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        """Compute the terms of the loss; a batch has items, a neighbour of each, labelled items."""
        assert batch.labels is not None
        assert isinstance(batch.x, Tensor)
        n_labelled = len(batch.x) - 2 * batch.n_pairs
        hidden = self.encoder(batch.x, self.weights.dropout if self.training else 0.0, generator)
        trust = self._confidence(batch.labels) ** TRUST_POWER
        trust *= _shares(batch.n_pairs, n_labelled, trust.device)
        layers = self.classifier, self.embedding, self.skip
        weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        apply: Any = _Loss.apply
        names = ("loss", "class", "contrast", "labelled")[: 4 if n_labelled else 3]
        with torch.autocast(hidden.device.type, enabled=False):
            found = apply(hidden.to(trust.dtype), batch, trust, self, *weights)
        return dict(zip(names, found, strict=False))

    def _confidence(self, beliefs: Tensor) -> Tensor:
        """Compute how far class probabilities [m, C] are from doubt: 1 for a known label."""
        if self.shape.multilabel:
            return (2 * beliefs - 1).abs().mean(1)
        return beliefs.amax(1)


@lru_cache(maxsize=16)
def _shares(n_pairs: int, n_labelled: int, device: torch.device) -> Tensor:
    """Compute the weights of the items in the loss: of n_pairs items, neighbours, labelled ones."""
    sizes = n_pairs, n_pairs, n_labelled
    shares = 1 / n_pairs, 0.0, 1 / max(n_labelled, 1)
    return torch.cat([torch.full((n,), x) for n, x in zip(sizes, shares, strict=True)]).to(device)


class _Loss(torch.autograd.Function):
    """Both heads, the loss and its terms, with the gradient written out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        batch: TrainingBatch,
        share: Tensor,
        network: ClassAndItemNetwork,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        class_weight, class_bias, weight, bias, skip_weight, skip_bias = weights
        assert isinstance(batch.x, Tensor)
        assert batch.labels is not None
        x = batch.x[: 2 * batch.n_pairs]
        # One product for both heads, because a narrow one is slow: it reads all of `hidden`.
        heads = torch.cat([class_weight, weight], 1)
        outputs = torch.addmm(torch.cat([class_bias, bias + skip_bias]), hidden, heads)
        outputs[: len(x), len(class_bias) :].addmm_(x, skip_weight)
        given = ClassAndItem(
            batch.labels,
            share,
            batch.n_pairs,
            network.shape.multilabel,
            CONTRAST_SCALE,
            LEAST_LENGTH,
            network.weights.contrast,
        )
        loss, *terms, gradient = kernels_for(outputs).class_and_item(outputs, given)
        ctx.save_for_backward(hidden, heads, x, gradient)
        ctx.n_classes = len(class_bias)
        ctx.mark_non_differentiable(*terms)
        return loss, *terms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, heads, x, gradient = ctx.saved_tensors
        gradient = gradient * grads[0]
        by_heads = hidden.t() @ gradient, gradient.sum(0)
        of_class, of_embedding = zip(
            *(x.tensor_split([ctx.n_classes], -1) for x in by_heads), strict=True
        )
        by_skip = x.t() @ gradient[: len(x), ctx.n_classes :]
        by_hidden = gradient @ heads.t()
        return by_hidden, None, None, None, *of_class, *of_embedding, by_skip, of_embedding[1]
