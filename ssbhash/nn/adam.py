"""Adam (Kingma and Ba, 2015), laid out for speed, with the usual result.

`FlatAdam` keeps its parameters in one vector and updates them in one pass. `RowAdam`
serves a matrix of which a step touches few rows: a batch of texts has gradients in
some 800 of 10,000 rows of the first layer, but dense Adam sweeps all 5 million weights
and both moments at every step.
The "lazy" variants skip untouched rows for good, which is another algorithm: a rare
feature loses the nine tenths of its step that momentum would still have carried.
Here a row that was skipped for n steps is caught up when next touched, in closed form:
with m, v its moments after step t0, the missed steps sum to

    sum_{j=1..n} c_{t0+j} beta1^j m / (sqrt(beta2^j v) + eps_j)
        = m / (sqrt(v) + eps) * sum_{j=1..n} c_{t0+j} (beta1 / sqrt(beta2))^j

where c_t is the bias-corrected step size; eps alone is approximated (it is taken to
shrink with v, and the terms that matter lie within some 40 steps).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999


class FlatAdam:
    """Adam on many small parameters as one vector, in one fused pass.

    Parameters
    ----------
    parameters
        Their data and gradients become views of the vector.
    learning_rate, eps
        As in Adam.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, eps: float) -> None:
        parameters = list(parameters)
        self.learning_rate, self.eps = learning_rate, eps
        self.weight = torch.cat([p.detach().flatten() for p in parameters])
        self.grad = torch.zeros_like(self.weight)
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.n_steps = torch.tensor(0.0)
        sizes = [p.numel() for p in parameters]
        parts = zip(torch.split(self.weight, sizes), torch.split(self.grad, sizes), strict=True)
        for parameter, (weight, grad) in zip(parameters, parts, strict=True):
            parameter.data = weight.view_as(parameter)
            parameter.grad = grad.view_as(parameter)

    @torch.no_grad()
    def step(self) -> None:
        """Take one step, and zero the gradients."""
        self.n_steps += 1
        _update(
            self.weight,
            self.grad,
            self.mean,
            self.square,
            self.n_steps,
            self.learning_rate,
            self.eps,
        )
        self.grad.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Give moments and counter."""
        return {"mean": self.mean, "square": self.square, "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class RowAdam:
    """Adam on `weight` [n_rows, width], updating only rows that were fetched.

    Parameters
    ----------
    weight
        Updated in place. Rows are current only after `fetch` or `flush`.
    learning_rate, eps
        As in Adam.
    """

    # Beyond so many steps (beta1 / sqrt(beta2))^j < 1e-13: older sums are final.
    _HORIZON = 300

    def __init__(
        self,
        weight: Tensor,
        learning_rate: float,
        eps: float = 1e-7,
    ) -> None:
        self.weight = weight.detach()
        self.learning_rate, self.eps = learning_rate, eps
        self.mean = torch.zeros_like(self.weight)
        self.square = torch.zeros_like(self.weight)
        self.seen = torch.zeros(weight.shape[0], dtype=torch.int64, device=weight.device)
        self.n_steps = 0
        self._forget()

    def _forget(self) -> None:
        # _missed[t0 - _base]: the step sizes since t0, each times (beta1 / sqrt(beta2))^age, summed.
        self._base = self.n_steps
        self._missed = torch.zeros(256, dtype=torch.float64)

    def _step_size(self, step: int) -> tuple[float, float]:
        correction = math.sqrt(1 - BETA2**step)
        return self.learning_rate * correction / (1 - BETA1**step), self.eps * correction

    def _current(self, weight: Tensor, mean: Tensor, square: Tensor, seen: Tensor) -> None:
        """Catch rows up to the last finished step, in place."""
        skipped = (self.n_steps - seen).to(torch.float64)[:, None]
        missed = self._missed.to(seen.device)[seen - self._base][:, None]
        _, eps = self._step_size(max(self.n_steps, 1))
        # MKL's square root takes a slow path for exact zeros, and half of them are.
        root = (square + 1e-30).sqrt_().add_(eps)
        weight.addcdiv_(mean * missed.to(mean.dtype), root, value=-1)
        mean.mul_((BETA1**skipped).to(mean.dtype))
        square.mul_((BETA2**skipped).to(mean.dtype))

    @torch.no_grad()
    def fetch(self, rows: Tensor) -> Tensor:
        """Give rows `rows` (unique, int64) as a leaf [k, width] to differentiate by."""
        self._rows = rows
        self._state = (self.mean.index_select(0, rows), self.square.index_select(0, rows))
        table = self.weight.index_select(0, rows)
        self._current(table, *self._state, self.seen[rows])
        self._table = table.requires_grad_()
        return self._table

    @torch.no_grad()
    def step(self) -> None:
        """Take one Adam step with the gradient of the fetched rows."""
        self.n_steps += 1
        size, _ = self._step_size(self.n_steps)
        mean, square = self._state
        table, grad = self._table.detach(), self._table.grad
        if grad is not None:
            steps = torch.tensor(float(self.n_steps))
            _update(table, grad, mean, square, steps, self.learning_rate, self.eps)
        self.weight.index_copy_(0, self._rows, table)
        self.mean.index_copy_(0, self._rows, mean)
        self.square.index_copy_(0, self._rows, square)
        self.seen[self._rows] = self.n_steps
        self._extend_missed(size)

    def _extend_missed(self, size: float) -> None:
        end = self.n_steps - self._base
        if end == self._missed.shape[0]:
            self._missed = torch.cat([self._missed, torch.zeros_like(self._missed)])
        start = max(0, end - self._HORIZON)
        age = torch.arange(end - start, 0, -1, dtype=torch.float64)
        self._missed[start:end] += size * (BETA1 / math.sqrt(BETA2)) ** age

    @torch.no_grad()
    def flush(self) -> None:
        """Catch all rows up, so that `weight` is what dense Adam would have."""
        self._current(self.weight, self.mean, self.square, self.seen)
        self.seen.fill_(self.n_steps)
        self._forget()

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and counters; call `flush` first."""
        return {
            "mean": self.mean,
            "square": self.square,
            "n_steps": torch.tensor(self.n_steps),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.n_steps = int(state["n_steps"])
        self.seen.fill_(self.n_steps)
        self._forget()


def _update(
    weight: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    n_steps: Tensor,
    learning_rate: float,
    eps: float,
) -> None:
    """Fused step of torch.optim.Adam, without its bookkeeping for each parameter."""
    torch._fused_adam_(
        [weight],
        [grad],
        [mean],
        [square],
        [],
        [n_steps],
        lr=learning_rate,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
