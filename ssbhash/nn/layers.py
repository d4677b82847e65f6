"""The encoder shared by all methods: 2 x [Linear, ReLU, BatchNorm], as in the paper's setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssbhash.inputs import Batch, SparseBatch, native_for

# Matrix products take other kernels, which round otherwise, for the rows and columns
# beyond a multiple of their tile.
TILE = 16


class Linear(nn.Module):
    """Linear layer with Glorot-uniform weights and zero biases, Keras' defaults.

    The weight is stored by input feature, [n_in, n_out]: a sparse batch then touches
    whole rows, which the optimiser can update alone. In evaluation the output is padded
    to whole tiles: for 5, 7 or 11 columns MKL rounds the rows of a batch differently.
    """

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(glorot(n_in, n_out, generator))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Batch) -> Tensor:
        """Map [m, n_in] to [m, n_out]."""
        if isinstance(x, SparseBatch):
            return x.product(self.weight) + self.bias
        if self.training or self.bias.shape[0] % TILE == 0:
            return torch.addmm(self.bias, x, self.weight)
        n_out = self.bias.shape[0]
        padding = (0, -n_out % TILE)
        return torch.addmm(F.pad(self.bias, padding), x, F.pad(self.weight, padding))[:, :n_out]

    def product(self, x: Batch) -> Tensor:
        """Map without the bias."""
        return x.product(self.weight) if isinstance(x, SparseBatch) else torch.mm(x, self.weight)


class Decoder(nn.Module):
    """Weight by target feature [n_targets, n_bits], and bias, of the linear decoder."""

    def __init__(self, n_bits: int, n_targets: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(glorot(n_targets, n_bits, generator))
        self.bias = nn.Parameter(torch.zeros(n_targets))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation with Keras' constants, as in the reference implementation.

    Running statistics are a plain mean over the first 100 steps and an exponential
    one (0.99) from there on; Keras starts from mean 0 and variance 1 instead, which
    a short training never forgets.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-3, momentum=0.01)
        self.n_steps = 0

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [m, width]; a training batch of one item uses the running statistics."""
        if self.training and input.shape[0] > 1:
            self.count()
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def count(self) -> float:
        """Count a step, and give the weight of its statistics in the running ones."""
        # nn.Module's own assignment takes 20 us.
        steps = vars(self)
        steps["n_steps"] += 1
        steps["momentum"] = momentum = max(1 / self.n_steps, 0.01)
        return momentum

    def running(self) -> tuple[Tensor, Tensor]:
        """Give the running mean and variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean, self.running_var

    def rectified(self, product: Tensor, bias: Tensor) -> Tensor:
        """Normalise max(product + bias, 0), in few passes where it is native."""
        pays = self.training and product.shape[0] > 1 and product.dtype == torch.float32
        if not pays or native_for(product) is None:
            return self.forward(torch.relu(product + bias))
        self.count()
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        apply: Any = _ReluNorm.apply
        out: Tensor = apply(product, bias, self.weight, self.bias, self)
        return out

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [width] that normalise by the running statistics."""
        mean, variance = self.running()
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def get_extra_state(self) -> Tensor:
        """Give the steps so far, part of a checkpoint."""
        return torch.tensor(self.n_steps)

    def set_extra_state(self, state: Any) -> None:
        """Restore the number of steps."""
        self.n_steps = int(state)


class _ReluNorm(torch.autograd.Function):
    """Bias, ReLU and batch normalisation, forward and backward in one call each."""

    @staticmethod
    def forward(
        ctx: Any, product: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, norm: BatchNorm
    ) -> Tensor:
        rectified, out = torch.empty_like(product), torch.empty_like(product)
        moments = product.new_empty(2, product.shape[1])
        running = norm.running()
        arrays = (x.detach().numpy() for x in (product, bias, scale, shift))
        written = (x.numpy() for x in (rectified, out, moments, *running))
        threads = torch.get_num_threads()
        native_for(product).relu_norm(*arrays, norm.eps, norm.momentum, *written, threads)
        ctx.save_for_backward(rectified, moments, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rectified, moments, scale = ctx.saved_tensors
        product = torch.empty_like(rectified)
        columns = [torch.empty_like(scale) for _ in range(3)]
        arrays = (x.detach().numpy() for x in (grads[0].contiguous(), rectified, moments, scale))
        written = (x.numpy() for x in (product, *columns))
        native_for(product).relu_norm_backward(*arrays, *written, torch.get_num_threads())
        return product, *columns, None


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
        """Encode a batch, dropping out this share of the inputs and of each hidden layer."""
        if not self.training and not torch.is_grad_enabled():
            return self._encode(x)
        product = self.first.product(_dropped(x, dropout, generator))
        hidden = self.first_norm.rectified(product, self.first.bias)
        product = self.second.product(_dropped(hidden, dropout, generator))
        hidden = self.second_norm.rectified(product, self.second.bias)
        dropped: Tensor = _dropped(hidden, dropout, generator)
        return dropped

    def project(self, x: Batch, head: Linear) -> Tensor:
        """Encode and apply a linear head, in one pass where it is native and learns nothing."""
        native = native_for(head.weight)
        learns = self.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        if learns or native is None or not isinstance(x, SparseBatch):
            projected: Tensor = head(self(x))
            return projected
        out = head.weight.new_empty(len(x), len(head.bias))
        first = x.columns, x.values, x.starts, self.first.weight, self.first.bias
        last = head.weight, head.bias, out
        arrays = *map(_array, first), *self._folded(_array), *map(_array, last)
        native.encode(*arrays, torch.get_num_threads())
        return out

    def _folded(self, form: Callable[[Tensor], Any] = lambda x: x) -> list[Any]:
        """Second weight and bias, the first normalisation folded in; last scale and shift.

        `form` turns tensors into what is calculated with: numpy stays on one thread, where
        torch's others would go on spinning for a while, in the way of the native ones.
        """
        learned = self.second.weight, self.second.bias, *self.first_norm.scale_and_shift()
        weight, bias, scale, shift = map(form, learned)
        last = map(form, self.second_norm.scale_and_shift())
        return [weight * scale[:, None], bias + (weight * shift[:, None]).sum(0), *last]

    def _encode(self, x: Batch) -> Tensor:
        """Encode without gradients."""
        weight, bias, scale, shift = self._folded()
        hidden = torch.addmm(bias, self.first(x).relu_(), weight).relu_()
        return hidden.mul_(scale).add_(shift)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _dropped(x: Any, share: float, generator: torch.Generator | None) -> Any:
    if not share:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * keep.div_(1 - share)


def glorot(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Glorot-uniform weights [n_in, n_out]."""
    bound = (6 / (n_in + n_out)) ** 0.5
    return torch.empty(n_in, n_out).uniform_(-bound, bound, generator=generator)
