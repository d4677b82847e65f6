"""Adam (Kingma and Ba, 2015): the usual result, computed fast.

`FlatAdam` keeps its parameters in one vector and updates them in one pass. `RowAdam` is for a
matrix that gets a gradient in few rows. A batch of texts uses about 800 of the 10,000 rows of the
first layer, but dense Adam updates all 5 million weights and both moments at every step.

"Lazy" variants of Adam drop the missed steps of unused rows. That is another algorithm: a rare
feature loses nine tenths of its step, which momentum would have carried on. Here a row that missed
n steps takes them all, in closed form, before it is read again. With moments m and v after step
t0, the missed steps sum to

    sum_{j=1..n} c_{t0+j} beta1^j m / (sqrt(beta2^j v) + eps)
        = m / (sqrt(v) + eps) * sum_{j=1..n} c_{t0+j} (beta1 / sqrt(beta2))^j

where c_t is the bias-corrected step size. The only approximation is that eps shrinks with v. The
terms that matter lie within about 40 steps.

eps is Keras' "epsilon hat", c m / (sqrt(v) + eps), as in the reference implementation. torch
divides it by the correction of v. In the first layer sqrt(v) of a rare word is about as large as
eps = 1e-7, so the two learn differently: torch's form takes full steps along the noise of the
first batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ssbhash.kernels import AdamState, Missed, in_large_pages, kernels_for

BETA1, BETA2 = 0.9, 0.999  # also in ssbhash/kernels and csrc/core
LOG_BETA1, LOG_BETA2 = np.float32(math.log(BETA1)), np.float32(math.log(BETA2))

# At this age (beta1 / sqrt(beta2))^age < 1e-13, so sums of older steps no longer change.
HORIZON = 300
AGE_WEIGHTS = (BETA1 / math.sqrt(BETA2)) ** np.arange(HORIZON, 0, -1)


class FlatAdam:
    """Adam on many parameters as one vector.

    Parameters
    ----------
    parameters
        Their data become views of one vector.
    learning_rate, eps
        As in Adam.
    averages
        An average over steps of each parameter, or none. Their data become views, too.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        eps: float,
        averages: Sequence[Tensor] = (),
    ) -> None:
        self.parameters, self.learning_rate = list(parameters), learning_rate
        n = sum(parameter.numel() for parameter in self.parameters)
        zeros = self.parameters[0].detach().new_zeros(4 if averages else 3, n)
        # One array for all, so that it is large enough for large pages.
        weight, mean, square, *average = in_large_pages(zeros)
        self.state = AdamState(weight, mean, square, eps, *average)
        self.n_steps = 0
        _make_views(self.parameters, weight)
        if averages:
            _make_views(averages, *average)

    def take_gradients(self) -> list[Tensor]:
        """Return the flat gradients of the parameters, and clear them."""
        taken = []
        for parameter in self.parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            taken.append((grad.to_dense() if grad.is_sparse else grad).flatten())
            parameter.grad = None
        return taken

    def step(self, gradients: list[Tensor], share: float = 0.0) -> None:
        """Take one step with the flat gradients of consecutive parts of the vector.

        Then the averages move by `share` of the way to the parameters.
        """
        self.n_steps += 1
        size = _step_size(self.learning_rate, self.n_steps)
        kernels_for(self.state.weight).adam(self.state, gradients, size, share)

    def state_dict(self) -> dict[str, Tensor]:
        """Return moments and counter."""
        return _saved(self.state, self.n_steps)

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.n_steps = _restore(self.state, saved)


class RowAdam:
    """Adam on `weight` [n_rows, width] that updates only the given rows.

    Parameters
    ----------
    weight
        Updated in place. After `catch_up` or `flush` a row has the value of dense Adam.
    learning_rate, eps
        As in Adam.
    """

    def __init__(self, weight: Tensor, learning_rate: float, eps: float = 1e-7) -> None:
        weight.data = in_large_pages(weight.data)
        mean, square = (in_large_pages(torch.zeros_like(weight.detach())) for _ in range(2))
        self.state = AdamState(weight.detach(), mean, square, eps)
        self.learning_rate = learning_rate
        # Number of steps that each row has taken or was caught up to.
        self.seen = np.zeros(len(weight), np.int64)
        self.n_steps = 0
        self._forget()

    def _forget(self) -> None:
        # _missed[t0 - _base] is the sum of (step size) * (beta1 / sqrt(beta2))^age since step t0.
        self._base = self.n_steps
        self._missed = np.zeros(256)

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Make rows (unique, int64) current; rows that are current do not change."""
        ids = rows.cpu().numpy()
        seen = self.seen[ids]
        self.seen[ids] = self.n_steps
        step = self._missed[seen - self._base].astype(np.float32)
        skipped = (self.n_steps - seen).astype(np.float32)
        factors = step, np.exp(skipped * LOG_BETA1), np.exp(skipped * LOG_BETA2)
        missed = Missed(*(torch.from_numpy(x).to(rows.device) for x in factors))
        kernels_for(self.state.weight).catch_up(self.state, rows, missed)

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Take one step: `rows` (unique) have `gradient` [k, width], all others none."""
        self.catch_up(rows)
        self.n_steps += 1
        size = _step_size(self.learning_rate, self.n_steps)
        kernels_for(self.state.weight).adam_rows(self.state, rows, gradient, size)
        self.seen[rows.cpu().numpy()] = self.n_steps
        self._extend_missed(size)

    def _extend_missed(self, size: float) -> None:
        end = self.n_steps - self._base
        if end == self._missed.shape[0]:
            self._missed = np.concatenate([self._missed, np.zeros_like(self._missed)])
        start = max(0, end - HORIZON)
        self._missed[start:end] += size * AGE_WEIGHTS[HORIZON - (end - start) :]

    def flush(self) -> None:
        """Make all rows current."""
        weight = self.state.weight
        self.catch_up(torch.arange(len(weight), device=weight.device))
        self._forget()

    def state_dict(self) -> dict[str, Tensor]:
        """Return moments and counter; call `flush` first."""
        return _saved(self.state, self.n_steps)

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.n_steps = _restore(self.state, saved)
        self.seen.fill(self.n_steps)
        self._forget()


def _make_views(tensors: Sequence[Tensor], vector: Tensor) -> None:
    """Copy tensors into a vector, and make them views of it."""
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.data = part.view_as(tensor).copy_(tensor.detach())


def _step_size(learning_rate: float, n_steps: int) -> float:
    """Multiply the learning rate by the bias corrections of both moments."""
    return learning_rate * math.sqrt(1 - BETA2**n_steps) / (1 - BETA1**n_steps)


def _saved(state: AdamState, n_steps: int) -> dict[str, Tensor]:
    return {"mean": state.mean, "square": state.square, "n_steps": torch.tensor(n_steps)}


def _restore(state: AdamState, saved: dict[str, Tensor]) -> int:
    state.mean.copy_(saved["mean"])
    state.square.copy_(saved["square"])
    return int(saved["n_steps"])
