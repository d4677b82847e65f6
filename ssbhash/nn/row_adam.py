"""Adam for a tall matrix of which a step touches few rows, with dense Adam's result.

A batch of texts has gradients in some 800 of 10,000 rows of the first layer; dense
Adam (Kingma and Ba, 2015) sweeps all 5 million weights and both moments at every step.
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

import torch
from torch import Tensor


class RowAdam:
    """Adam on `weight` [n_rows, width], updating only rows that were fetched.

    Parameters
    ----------
    weight
        Updated in place. Rows are current only after `fetch` or `flush`.
    learning_rate, beta1, beta2, eps
        As in Adam.
    """

    # Beyond so many steps (beta1 / sqrt(beta2))^j < 1e-13: older sums are final.
    _HORIZON = 300

    def __init__(
        self,
        weight: Tensor,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
    ) -> None:
        self.weight = weight.detach()
        self.learning_rate, self.beta1, self.beta2, self.eps = learning_rate, beta1, beta2, eps
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
        correction = math.sqrt(1 - self.beta2**step)
        return self.learning_rate * correction / (1 - self.beta1**step), self.eps * correction

    def _current(self, weight: Tensor, mean: Tensor, square: Tensor, seen: Tensor) -> None:
        """Catch rows up to the last finished step, in place."""
        skipped = (self.n_steps - seen).to(torch.float64)[:, None]
        missed = self._missed.to(seen.device)[seen - self._base][:, None]
        _, eps = self._step_size(max(self.n_steps, 1))
        weight.addcdiv_(mean * missed.to(mean.dtype), square.sqrt().add_(eps), value=-1)
        mean.mul_((self.beta1**skipped).to(mean.dtype))
        square.mul_((self.beta2**skipped).to(mean.dtype))

    @torch.no_grad()
    def fetch(self, rows: Tensor) -> Tensor:
        """Give rows `rows` (unique, int64) as a leaf [k, width] to differentiate by."""
        self._rows = rows
        self._state = (self.mean[rows], self.square[rows])
        table = self.weight[rows]
        self._current(table, *self._state, self.seen[rows])
        self._table = table.requires_grad_()
        return self._table

    @torch.no_grad()
    def step(self) -> None:
        """Take one Adam step with the gradient of the fetched rows."""
        self.n_steps += 1
        size, eps = self._step_size(self.n_steps)
        mean, square = self._state
        table = self._table.detach()
        grad = self._table.grad
        if grad is not None:
            mean.lerp_(grad, 1 - self.beta1)
            square.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        table.addcdiv_(mean, square.sqrt().add_(eps), value=-size)
        self.weight[self._rows] = table
        self.mean[self._rows] = mean
        self.square[self._rows] = square
        self.seen[self._rows] = self.n_steps
        self._extend_missed(size)

    def _extend_missed(self, size: float) -> None:
        end = self.n_steps - self._base
        if end == self._missed.shape[0]:
            self._missed = torch.cat([self._missed, torch.zeros_like(self._missed)])
        start = max(0, end - self._HORIZON)
        age = torch.arange(end - start, 0, -1, dtype=torch.float64)
        self._missed[start:end] += size * (self.beta1 / math.sqrt(self.beta2)) ** age

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
