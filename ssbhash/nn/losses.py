"""The terms of the losses, each the mean (or the paper's sum) over one batch.

Notation: m items, B bits, D features, C classes; l are logits, p = sigmoid(l).
Nanculef et al., *Self-Supervised Bernoulli Autoencoders for Semi-Supervised
Hashing*, arXiv 2007.08799.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssbhash.inputs import Batch, SparseBatch
from ssbhash.kernels import kernels_for

# Probabilities below the floor are taken for the floor, without a gradient. It is Keras' epsilon,
# to which the reference implementation clips. So a word that a code cannot explain is given up.
FLOOR = 1e-7
LOG_FLOOR = math.log(FLOOR)


def multinomial_reconstruction(code: Tensor, weight: Tensor, bias: Tensor, target: Batch) -> Tensor:
    """Compute the mean over items of -sum_d t_d log softmax(code W^T + bias)_d.

    Parameters
    ----------
    code
        [m, B], the decoder's input.
    weight, bias
        [D, B] and [D]: the linear decoder.
    target
        [m, D], non-negative; dense or sparse. Apart from the log-sum-exp only its
        non-zeros are used.

    Returns
    -------
    Tensor
        [], with gradients to code, weight and bias.
    """
    with torch.autocast(code.device.type, enabled=False):  # the softmax stays in float32
        if isinstance(target, SparseBatch):
            apply: Any = _SparseReconstruction.apply
            loss: Tensor = apply(code.float(), weight, bias, target)
            return loss
        log_p = F.log_softmax(F.linear(code.float(), weight, bias), 1)
        return -(target * log_p.clamp_min(LOG_FLOOR)).sum() / len(code)


class _SparseReconstruction(torch.autograd.Function):
    """Softmax regression; the forward pass computes the gradients too."""

    @staticmethod
    def forward(
        ctx: Any, code: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch
    ) -> Tensor:
        kernels = kernels_for(weight)
        found = kernels.softmax_regression(code.contiguous(), weight, bias, target, LOG_FLOOR)
        ctx.save_for_backward(*found[1:])
        return found.loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * grads[0] for gradient in ctx.saved_tensors), None


def _floored(log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum t max(log p, log FLOOR); also return the t whose p is above the floor."""
    above = log_p > LOG_FLOOR
    return (target * log_p.clamp_min(LOG_FLOOR)).sum(), target * above


def gaussian_reconstruction(code: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """Compute half the squared error, summed over the D features, mean over items."""
    return 0.5 * (F.linear(code, weight, bias).float() - target).square().sum(1).mean()


def bernoulli_kl(logits: Tensor) -> Tensor:
    """Compute KL(Bernoulli(p) || Bernoulli(1/2)), summed over bits, mean over items.

    It is B log 2 + sum_j [p log p + (1-p) log(1-p)]. The bracket is computed as
    p l - softplus(l), so that no p is rounded to 0 or 1 before its logarithm.
    """
    apply: Any = _BernoulliKL.apply
    divergence: Tensor = apply(logits)
    return divergence


# The terms on [m, B], [m, C] and [m, m] are small. Their gradients are written out, because
# autograd's records of their many operations would cost more than the operations.


class _BernoulliKL(torch.autograd.Function):
    """d/dl = p (1 - p) l, as the derivative of p log p + (1-p) log(1-p) by p is l."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        p = torch.sigmoid(logits)
        ctx.save_for_backward(logits, p)
        negative_entropy = (p * logits).sub_(F.softplus(logits))
        return negative_entropy.sum() / len(logits) + logits.shape[1] * math.log(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        logits, p = ctx.saved_tensors
        return torch.addcmul(p, p, p, value=-1).mul_(logits).mul_(grads[0] / len(logits))


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(mean, exp(log_variance)) || N(0, 1)), summed over bits, mean over items."""
    terms = log_variance.exp() + mean.square() - 1 - log_variance
    return 0.5 * terms.sum(1).mean()


def point_loss(scores: Tensor, labels: Tensor, known: Tensor, multilabel: bool) -> Tensor:
    """Compute the classifier's cross-entropy, mean over all m items; 0 for hidden labels.

    Parameters
    ----------
    scores
        [m, C], before softmax (or sigmoid where `multilabel`).
    labels
        [m, C], 0 or 1; rows of hidden labels are zero.
    known
        bool [m].
    """
    if multilabel:
        each = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").sum(1)
        return (each * known).mean()
    apply: Any = _PointLoss.apply
    loss: Tensor = apply(scores, labels * known[:, None])
    return loss


class _PointLoss(torch.autograd.Function):
    """d/ds = p sum_c t_c - t, t the labels whose p is above the floor."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor) -> Tensor:
        log_p = F.log_softmax(scores, 1)
        loss, above = _floored(log_p, labels)
        ctx.save_for_backward(log_p, above)
        return -loss / len(scores)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        log_p, above = ctx.saved_tensors
        grad = log_p.exp().mul_(above.sum(1, keepdim=True)).sub_(above)
        return grad.mul_(grads[0] / len(log_p)), None


def similarity(labels: Tensor, multilabel: bool) -> Tensor:
    """Compute S [m, m], the probability that two items share a class.

    With one class an item S_ij = y_i . y_j, as in the paper. With several classes y_i . y_j
    may exceed 1, and would then reward distance. There S_ij = 1 - prod_c (1 - y_ic y_jc):
    the probability of at least one shared label, if labels are independent.
    """
    if not multilabel:
        return labels @ labels.t()
    return 1 - (1 - labels[:, None, :] * labels[None, :, :]).prod(-1)


def pair_loss(code: Tensor, similar: Tensor) -> Tensor:
    """Compute (1/B) sum_ij S_ij D_ij + (1 - S_ij) max(0, B/3 - D_ij), over all m^2 pairs.

    It is a sum, not a mean. D is the squared Euclidean distance of the relaxed codes [m, B].
    """
    apply: Any = _PairLoss.apply
    with torch.autocast(code.device.type, enabled=False):
        loss: Tensor = apply(code.float(), similar.float())
    return loss


class _PairLoss(torch.autograd.Function):
    """With W = dL/dD + its transpose: dL/dcode_i = 2 sum_j W_ij (code_i - code_j)."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, similar: Tensor) -> Tensor:
        n_bits = code.shape[1]
        norms = code.square().sum(1)
        distance = torch.addmm(norms[:, None] + norms, code, code.t(), alpha=-2).clamp_min_(0)
        margin = (n_bits / 3 - distance).clamp_min_(0)
        excess = distance - margin
        ctx.save_for_backward(code, similar, distance, margin, excess)
        return torch.addcmul(margin, similar, excess).sum() / n_bits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        code, similar, distance, margin, excess = ctx.saved_tensors
        factor = grads[0] / code.shape[1]
        inside = (margin > 0).to(code.dtype)  # inside the margin d(excess)/dD is 2
        slope = torch.addcmul(similar, similar, inside).sub_(inside).mul_(distance > 0)
        slope = slope + slope.t()
        grad = torch.mul(code, slope.sum(1, keepdim=True)).addmm_(slope, code, alpha=-1)
        return grad.mul_(2 * factor), excess * factor
