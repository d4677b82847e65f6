"""SSB-VAE as the library trains it by default: no weights to tune.

The idea is that of Nanculef et al. (arXiv 2007.08799): the model's own predictions teach
the code where labels are hidden. What differs (docs/decisions.md has what was measured):

- every term is a mean over items or pairs, so that no weight depends on the batch, the
  number of bits or the number of classes;
- the predictions come from a teacher, the running average of the weights (Tarvainen and
  Valpola, NeurIPS 2017), without gradient, and count by their confidence; true labels
  stand where they are known; the teacher is what remains of a training;
- the bits themselves classify: each class has a fixed codeword, and the scaled inner
  product of code and codeword is a class score (as in Hoe et al., NeurIPS 2021);
- labelled items join every batch, and the hidden layers drop out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssbhash.inputs import Batch, SparseBatch
from ssbhash.nn import losses
from ssbhash.nn.autoencoder import Shape, Terms, TrainingBatch, Weights
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.relaxations import relax

# Scale of the inner product of code and codeword [-1, 1] as a class score.
CODEWORD_SCALE = 8.0
# The teacher keeps this share of itself at a step, less in the first hundred.
TEACHER_DECAY = 0.99
# Predictions count by their confidence to this power.
TRUST_POWER = 3.0
# Steps of the optimiser over which predictions gain their full weight.
RAMP_STEPS = 500
# Sparse targets are counts of terms: their likelihood is that of each term, not of one.
COUNTS_SCALE = 5.0
# Bits from which on the balance of pairs and reconstruction is kept: a pair's distance is a
# share of the bits, so that each feels it less the more there are, but the decoder all of each.
BALANCED_BITS = 32
# Drawings of codewords of which the best separated is kept.
N_DRAWINGS = 200


class SelfTaughtNetwork(PHSGSNetwork):
    """Averaged terms, a teacher, and codewords."""

    def __init__(self, shape: Shape, weights: Weights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.codewords: Tensor
        words = separated_codewords(shape.n_classes, shape.n_bits, generator)
        self.register_buffer("codewords", words)
        self.database_threshold: Tensor
        self.register_buffer("database_threshold", torch.zeros(shape.n_bits))
        self.teacher: PHSGSNetwork | None = None
        self.n_steps = 0

    def begin(self) -> None:
        """Start a training: the teacher is the student's copy."""
        if self.teacher is None:
            self.teacher = PHSGSNetwork(self.shape, self.weights, torch.Generator())
            state = self.state_dict()
            self.teacher.load_state_dict({name: state[name] for name in self.teacher.state_dict()})
        self.teacher.requires_grad_(False).to(self.codewords.device)

    @torch.no_grad()
    def stepped(self) -> None:
        """Move the teacher towards the student, after a step of the optimiser."""
        assert self.teacher is not None
        self.n_steps += 1
        share = max(1 - TEACHER_DECAY, 1 / (self.n_steps + 1))
        student = self.state_dict()
        for name, value in self.teacher.state_dict().items():
            if torch.is_tensor(value) and value.is_floating_point():
                value.lerp_(student[name], share)

    def get_extra_state(self) -> Tensor:
        """Give the steps so far, part of a checkpoint."""
        return torch.tensor(self.n_steps)

    def set_extra_state(self, state: Any) -> None:
        """Restore the number of steps."""
        self.n_steps = int(state)

    def _ramp(self) -> float:
        return min(1.0, (self.n_steps + 1) / RAMP_STEPS)

    def class_scores(self, x: Batch) -> Tensor:
        """Scores of the classifier: the teacher's, while there is one."""
        return super().class_scores(x) if self.teacher is None else self.teacher.class_scores(x)

    def finish(self) -> None:
        """Keep the teacher's weights: averaged, they encode better than the last ones."""
        assert self.teacher is not None
        self.load_state_dict(self.state_dict() | self.teacher.state_dict())
        self.teacher = None

    def terms(self, items: TrainingBatch, generator: torch.Generator) -> Terms:
        """Terms of the loss of one batch."""
        weights = self.weights
        hidden = self.encoder(items.x, weights.dropout if self.training else 0.0, generator)
        logits, scores = self._heads(hidden)
        belief, trust = self._believed(items)
        code = relax(logits, tau=weights.temperature, seed=generator)
        terms = {
            "reconstruction": self.reconstruction(code, items.target),
            "kl": losses.bernoulli_kl(logits),
            "point": self._point(scores, items),
            "pair": self._pair(logits, belief, trust, items),
            "codeword": self._codeword(logits, belief, trust),
        }
        excess = max(1.0, self.shape.n_bits / BALANCED_BITS)
        terms["loss"] = (
            weights.reconstruction * self._scale(items.target) / excess * terms["reconstruction"]
            + weights.beta * terms["kl"]
            + weights.point * terms["point"]
            + weights.pair * excess * terms["pair"]
            + weights.codeword * terms["codeword"]
        )
        return terms

    def _scale(self, target: Batch) -> float:
        """Bring the reconstruction of any target to one scale."""
        if self.shape.reconstruction == "gaussian":
            return 2 / self.shape.n_targets
        return COUNTS_SCALE if isinstance(target, SparseBatch) else 1.0

    @torch.no_grad()
    def _believed(self, items: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Class probabilities [m, C], the true labels where known, and how far to trust them [m]."""
        assert items.labels is not None
        assert items.known is not None
        assert self.teacher is not None
        scores = self.class_scores(items.x).float()
        if self.shape.multilabel:
            predicted = torch.sigmoid(scores)
            confidence = (2 * predicted - 1).abs().mean(1)
        else:
            predicted = torch.softmax(scores, 1)
            confidence = predicted.amax(1)
        belief = torch.where(items.known[:, None], items.labels, predicted)
        return belief, torch.where(items.known, 1.0, confidence**TRUST_POWER * self._ramp())

    def _point(self, scores: Tensor, items: TrainingBatch) -> Tensor:
        """Cross-entropy of the classifier, mean over the labelled items."""
        assert items.labels is not None
        assert items.known is not None
        mean = losses.point_loss(scores, items.labels, items.known, self.shape.multilabel)
        return mean * (len(items.known) / items.known.sum().clamp_min(1))

    def _pair(self, logits: Tensor, belief: Tensor, trust: Tensor, items: TrainingBatch) -> Tensor:
        """Hinge on the expected Hamming distance, a share of the bits; trusted mean over pairs.

        S d + (1 - S) max(0, 1/2 - d): half of the bits is what unrelated codes differ in.
        """
        sign = torch.tanh(logits / 2)
        distance = (1 - sign @ sign.t() / self.shape.n_bits) / 2
        similar = losses.similarity(belief, self.shape.multilabel)
        weight = torch.outer(trust, trust).fill_diagonal_(0)
        hinge = similar * distance + (1 - similar) * (0.5 - distance).clamp_min(0)
        return (weight * hinge).sum() / weight.sum().clamp_min(1e-6)

    def _codeword(self, logits: Tensor, belief: Tensor, trust: Tensor) -> Tensor:
        """Cross-entropy of the classes as the bits tell them, trusted mean over items."""
        similarity = torch.tanh(logits / 2) @ self.codewords.t() / self.shape.n_bits
        scores = CODEWORD_SCALE * similarity
        if self.shape.multilabel:
            each = F.binary_cross_entropy_with_logits(scores, belief, reduction="none").sum(1)
        else:
            each = -(belief * F.log_softmax(scores, 1)).sum(1)
        return (trust * each).sum() / trust.sum().clamp_min(1e-6)


def separated_codewords(n_classes: int, n_bits: int, generator: torch.Generator) -> Tensor:
    """Draw codewords of +-1 [n_classes, n_bits], the closest two as far apart as may be."""
    best, best_key = torch.empty(0), (float("inf"), float("inf"))
    for _ in range(N_DRAWINGS):
        words = torch.randint(0, 2, (n_classes, n_bits), generator=generator).float() * 2 - 1
        overlap = (words @ words.t()).fill_diagonal_(-n_bits)
        key = (float(overlap.max()), float(overlap.square().sum()))
        if key < best_key:
            best, best_key = words, key
    return best
