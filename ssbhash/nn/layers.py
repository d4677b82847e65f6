"""The encoder shared by all methods: 2 x [Linear, ReLU, BatchNorm], as in the paper's setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssbhash.inputs import Batch, SparseBatch
from ssbhash.kernels import Dropout, Norm, Rectified, kernels_for, plain

# Matrix products use other kernels, which round differently, for rows and columns beyond a
# multiple of their tile.
TILE = 16

# Takes n_features and n_hidden_units.
EncoderFactory: TypeAlias = Callable[[int, int], nn.Module]


class Linear(nn.Module):
    """Linear layer with Glorot-uniform weights and zero biases, Keras' defaults.

    The weight is stored by input feature, [n_in, n_out], so that a sparse batch uses whole rows
    and the optimiser updates only these.
    """

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(glorot(n_in, n_out, generator))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Batch) -> Tensor:
        """Map [m, n_in] to [m, n_out]."""
        if isinstance(x, SparseBatch):
            return x.product(self.weight) + self.bias
        if self.training:
            return torch.addmm(self.bias, x, self.weight)
        return affine(x, self.weight, self.bias)

    def product(self, x: Batch) -> Tensor:
        """Map without the bias."""
        return x.product(self.weight) if isinstance(x, SparseBatch) else torch.mm(x, self.weight)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute x weight + bias [m, n_out], so that a row does not depend on the others.

    With 5, 7 or 11 columns MKL rounds the rows of a batch differently. So there are whole tiles.
    """
    n_out = bias.shape[0]
    padding = (0, -n_out % TILE)
    if padding[1]:
        weight, bias = F.pad(weight, padding), F.pad(bias, padding)
    return torch.addmm(bias, x, weight)[:, :n_out]


class Decoder(nn.Module):
    """Weight [n_targets, n_bits] and bias [n_targets] of the linear decoder."""

    def __init__(self, n_bits: int, n_targets: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(glorot(n_targets, n_bits, generator))
        self.bias = nn.Parameter(torch.zeros(n_targets))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation with Keras' constants, as in the reference implementation.

    Running statistics are a plain mean over the first 100 steps, then an exponential mean (0.99).
    Keras starts from mean 0 and variance 1, which still show after a short training.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-3, momentum=0.01)
        self.n_steps = 0

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [m, width]; a training batch of one item uses the running statistics."""
        if self.training and input.shape[0] > 1:
            self._count()
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _count(self) -> None:
        """Count a step, and set the weight of its statistics in the running ones."""
        self.n_steps += 1
        self.momentum = max(1 / self.n_steps, 0.01)

    def rectified(self, product: Tensor, bias: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Normalise max(product + bias, 0) [m, width], then drop units."""
        if not self.training or product.shape[0] == 1:
            return plain.dropped(self.forward(torch.relu(product + bias)), dropout)
        self._count()
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        apply: Any = _ReluNorm.apply
        out: Tensor = apply(product.float(), bias, self.weight, self.bias, self, dropout)
        return out

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [width] that normalise by the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def get_extra_state(self) -> Tensor:
        """Return the steps so far, for a checkpoint."""
        return torch.tensor(self.n_steps)

    def set_extra_state(self, state: Any) -> None:
        """Restore the number of steps."""
        self.n_steps = int(state)


class _ReluNorm(torch.autograd.Function):
    """Bias, ReLU, batch normalisation and dropout, forward and backward in one call each."""

    @staticmethod
    def forward(
        ctx: Any,
        product: Tensor,
        bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        norm: BatchNorm,
        dropout: Dropout | None,
    ) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        running = norm.running_mean, norm.running_var
        parameters = Norm(scale, shift, *running, norm.eps, norm.momentum)
        out, saved = kernels_for(product).relu_norm(product, bias, parameters, dropout)
        ctx.save_for_backward(*saved, scale)
        ctx.dropout = dropout
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *saved, scale = ctx.saved_tensors
        kernels = kernels_for(grads[0])
        found = kernels.relu_norm_backward(grads[0], Rectified(*saved), scale, ctx.dropout)
        return *found, None, None


class Encoder(nn.Module):
    """Features to the last hidden layer [m, n_hidden_units]."""

    def __init__(self, n_features: int, n_hidden_units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Linear(n_features, n_hidden_units, generator)
        self.first_norm = BatchNorm(n_hidden_units)
        self.second = Linear(n_hidden_units, n_hidden_units, generator)
        self.second_norm = BatchNorm(n_hidden_units)

    def forward(
        self, x: Batch, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode a batch; `dropout` is the share of inputs and hidden units that are dropped."""
        if not self.training and not torch.is_grad_enabled():
            return self._encode(x)
        device, width = self.second.bias.device, self.second.bias.shape[0]
        shapes = (len(x), self.first.weight.shape[0]), (len(x), width), (len(x), width)
        drop_x, drop_first, drop_second = _draw(shapes, dropout, generator, device)
        if drop_x is not None:
            assert isinstance(x, Tensor)
            x = kernels_for(x).dropped(x, drop_x)
        hidden = self.first_norm.rectified(self.first.product(x), self.first.bias, drop_first)
        product = self.second.product(hidden)
        return self.second_norm.rectified(product, self.second.bias, drop_second)

    def project(self, x: Batch, head: Linear) -> Tensor:
        """Encode, and apply a linear layer."""
        projected: Tensor = head(self(x))
        return projected

    def _encode(self, x: Batch) -> Tensor:
        """Encode without gradients."""
        # The first normalisation is folded into the second layer.
        scale, shift = self.first_norm.scale_and_shift()
        weight = self.second.weight * scale[:, None]
        bias = torch.addmv(self.second.bias, self.second.weight.t(), shift)
        hidden = torch.addmm(bias, self.first(x).relu_(), weight).relu_()
        scale, shift = self.second_norm.scale_and_shift()
        return hidden.mul_(scale).add_(shift)


class OwnEncoder(nn.Module):
    """A user's module in place of the encoder.

    It takes dense rows [m, n_features] and returns [m, n_hidden_units]. Its initial weights
    are drawn from the generator. Batch normalisation refuses a training batch of one item, so
    such a batch is encoded as in evaluation.

    Parameters
    ----------
    make
        Makes the module of n_features and n_hidden_units.

    Raises
    ------
    TypeError
        If `make` returns no module, or one with a state that cannot be saved.
    ValueError
        If the module returns another shape.
    """

    def __init__(
        self, make: EncoderFactory, n_features: int, n_hidden_units: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.n_hidden_units = n_hidden_units
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = make(n_features, n_hidden_units)
            if not isinstance(self.module, nn.Module):
                raise TypeError(
                    f"encoder must return a torch.nn.Module, got {type(self.module).__name__}"
                )
            self.eval()
            with torch.no_grad():
                self(torch.zeros(2, n_features))
        for name, value in self.module.state_dict().items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"encoder has the state {name!r}, a {type(value).__name__}, which cannot be "
                    "saved: only tensors can"
                )
        self.train()

    def forward(
        self, x: Batch, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode a batch; `dropout` is the share of inputs and hidden units that are dropped."""
        rows = x.dense() if isinstance(x, SparseBatch) else x
        was_training = self.training
        self.module.train(was_training and len(rows) > 1)
        (drawn,) = _draw([rows.shape], dropout, generator, rows.device)
        hidden = self.module(plain.dropped(rows, drawn))
        self.module.train(was_training)
        wanted = len(rows), self.n_hidden_units
        if not isinstance(hidden, Tensor) or hidden.shape != wanted:
            got = list(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise ValueError(
                f"encoder must map {list(rows.shape)} to {list(wanted)} (n_hidden_units="
                f"{self.n_hidden_units}), it returned {got}"
            )
        (drawn,) = _draw([wanted], dropout, generator, rows.device)
        return plain.dropped(hidden, drawn)

    def project(self, x: Batch, head: Linear) -> Tensor:
        """Encode, and apply a linear layer."""
        projected: Tensor = head(self(x))
        return projected


def _draw(
    shapes: Sequence[tuple[int, ...]],
    share: float,
    generator: torch.Generator | None,
    device: torch.device,
) -> list[Dropout | None]:
    """Draw which units to drop: the share of them to the nearest 256th; None if that is 0."""
    threshold = min(round(256 * share), 255)
    if not threshold:
        return [None] * len(shapes)
    # Eight units from each random number: drawing them one by one took a third of a step.
    n_words = [-(-math.prod(shape) // 8) for shape in shapes]
    words = torch.empty(sum(n_words), dtype=torch.int64, device=device)
    parts = words.random_(-(2**63), None, generator=generator).view(torch.uint8)
    units = torch.split(parts, [8 * n for n in n_words])
    return [
        Dropout(part[: math.prod(shape)].view(shape), threshold)
        for part, shape in zip(units, shapes, strict=True)
    ]


def glorot(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Draw Glorot-uniform weights [n_in, n_out]."""
    bound = (6 / (n_in + n_out)) ** 0.5
    return torch.empty(n_in, n_out).uniform_(-bound, bound, generator=generator)
