"""Adam (Kingma and Ba, 2015), laid out for speed, with the usual result.

`FlatAdam` keeps its parameters in one vector and updates them in one pass. `RowAdam`
serves a matrix of which a step touches few rows: a batch of texts has gradients in
some 800 of 10,000 rows of the first layer, but dense Adam sweeps all 5 million weights
and both moments at every step.
The "lazy" variants skip untouched rows for good, which is another algorithm: a rare
feature loses the nine tenths of its step that momentum would still have carried.
Here a row that was skipped for n steps is caught up when next touched, in closed form:
with m, v its moments after step t0, the missed steps sum to

    sum_{j=1..n} c_{t0+j} beta1^j m / (sqrt(beta2^j v) + eps)
        = m / (sqrt(v) + eps) * sum_{j=1..n} c_{t0+j} (beta1 / sqrt(beta2))^j

where c_t is the bias-corrected step size; eps alone is approximated (it is taken to
shrink with v, and the terms that matter lie within some 40 steps).

eps is Keras' "epsilon hat", c m / (sqrt(v) + eps), as in the reference implementation;
torch divides it by the correction of v. In the first layer sqrt(v) of a rare word is of
the size of eps = 1e-7, so the two learn differently: torch's form takes full steps along
the noise of the first batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssbhash.inputs import Touched, in_large_pages, native_for

BETA1, BETA2 = 0.9, 0.999  # also in csrc/core/training/kernels/layers.hpp
LOG_BETA1, LOG_BETA2 = np.float32(math.log(BETA1)), np.float32(math.log(BETA2))

# Beyond so many steps (beta1 / sqrt(beta2))^age < 1e-13: sums of older steps are final.
HORIZON = 300
AGE_WEIGHTS = (BETA1 / math.sqrt(BETA2)) ** np.arange(HORIZON, 0, -1)

Column = npt.NDArray[np.float32]


class FlatAdam:
    """Adam on many small parameters as one vector, in one fused pass.

    Parameters
    ----------
    parameters
        Their data become views of the vector.
    learning_rate, eps
        As in Adam.

    Attributes
    ----------
    gradient
        Memory for the gradient of all parameters in one, for whoever writes it there.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, eps: float) -> None:
        parameters = list(parameters)
        self.learning_rate, self.eps = learning_rate, eps
        self.parameters = parameters
        weight = torch.cat([p.detach().flatten() for p in parameters])
        # In one piece: large enough for large pages.
        state = in_large_pages(torch.stack([weight, *torch.zeros(3, *weight.shape).to(weight)]))
        self.weight, self.mean, self.square, self.gradient = state
        self.n_steps = 0
        self._native = native_for(self.weight)
        self._arrays = [] if self._native is None else [x.numpy() for x in self._state()]
        parts = torch.split(self.weight, [p.numel() for p in parameters])
        for parameter, weight in zip(parameters, parts, strict=True):
            parameter.data = weight.view_as(parameter)

    def gradient_views(self) -> dict[Tensor, Tensor]:
        """Give each parameter's part of `gradient`."""
        parts = torch.split(self.gradient, [p.numel() for p in self.parameters])
        return {p: x.view_as(p) for p, x in zip(self.parameters, parts, strict=True)}

    def gradients(self) -> list[Tensor]:
        """Take the parameters' gradients, flat, and leave them without any."""
        taken = []
        for parameter in self.parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            taken.append(grad.flatten())
            parameter.grad = None
        return taken

    def step(self, gradients: list[Tensor]) -> None:
        """Take one step with flat gradients, of the parameters in turn or of all in one."""
        self.n_steps += 1
        if self._native is not None:
            size = _step_size(self.learning_rate, self.n_steps)
            grads = [x.numpy() for x in gradients]
            self._native.adam_flat(*self._arrays, grads, size, self.eps, torch.get_num_threads())
        else:
            whole = torch.cat(gradients)
            _update(self._state(), whole, self.n_steps, self.learning_rate, self.eps)

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.mean, self.square

    def state_dict(self) -> dict[str, Tensor]:
        """Give moments and counter."""
        n_steps = torch.tensor(self.n_steps)
        return {"mean": self.mean, "square": self.square, "n_steps": n_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.n_steps = int(state["n_steps"])


class RowAdam:
    """Adam on `weight` [n_rows, width], updating only the rows it is told of.

    Parameters
    ----------
    weight
        Updated in place. Rows are current only after `catch_up` or `flush`.
    learning_rate, eps
        As in Adam.
    """

    def __init__(self, weight: Tensor, learning_rate: float, eps: float = 1e-7) -> None:
        weight.data = in_large_pages(weight.data)
        self.weight = weight.detach()
        self.learning_rate, self.eps = learning_rate, eps
        self.mean, self.square = (in_large_pages(torch.zeros_like(self.weight)) for _ in range(2))
        self.seen = np.zeros(weight.shape[0], np.int64)
        self.n_steps = 0
        self._native = native_for(self.weight)
        self._arrays = [] if self._native is None else [x.numpy() for x in self._state()]
        self._owed: Sequence[Column] | None = None
        self._forget()

    def _forget(self) -> None:
        # _missed[t0 - _base]: step sizes since t0, each times (beta1 / sqrt(beta2))^age, summed.
        self._base = self.n_steps
        self._missed = np.zeros(256)

    def catch_up(self, rows: Tensor) -> None:
        """Make rows `rows` (unique, int64) current: the next step is theirs."""
        self._settle()
        step, *decays = self._missed_by(rows)
        if self._native is None:
            self._catch_up_by_torch(rows, step, *decays)
            return
        # The moments decay in the step that follows, which reads and writes them anyway.
        self._owed = decays
        self._owed_by = rows
        factors = step, None, None, self.eps, torch.get_num_threads()
        self._native.catch_up(*self._arrays, rows.numpy(), *factors)

    def _missed_by(self, rows: Tensor) -> tuple[Column, Column, Column]:
        """Sum of the steps that each row missed, and the decay of its moments; counts it current."""
        ids = rows.cpu().numpy()
        seen = self.seen[ids]
        self.seen[ids] = self.n_steps
        step = self._missed[seen - self._base].astype(np.float32)
        skipped = (self.n_steps - seen).astype(np.float32)
        return step, np.exp(skipped * LOG_BETA1), np.exp(skipped * LOG_BETA2)

    @torch.no_grad()
    def _catch_up_by_torch(self, rows: Tensor, *factors: Column) -> None:
        columns = (torch.from_numpy(x)[:, None].to(rows.device) for x in factors)
        step, mean_decay, square_decay = columns
        mean, square = self.mean.index_select(0, rows), self.square.index_select(0, rows)
        # MKL's square root takes a slow path for exact zeros, and half of them are.
        root = (square + 1e-30).sqrt_().add_(self.eps)
        self.weight.index_add_(0, rows, mean * step / root, alpha=-1)
        self.mean.index_copy_(0, rows, mean * mean_decay)
        self.square.index_copy_(0, rows, square * square_decay)

    def _settle(self) -> None:
        """Let the moments decay of rows that were made current and then took no step."""
        if self._owed is not None:
            for moment, decay in zip((self.mean, self.square), self._owed, strict=True):
                moment[self._owed_by] *= torch.from_numpy(decay)[:, None]
            self._owed = None

    def step(self, rows: Tensor, grad: Tensor) -> None:
        """Take one Adam step: `rows` are current and have gradients [k, width], others none."""
        if self._native is not None:
            each = torch.arange(len(rows))
            self._native_step(rows, (each, torch.ones(len(rows)), each), grad)
            return
        self._advance(rows)
        state = [x.index_select(0, rows) for x in self._state()]
        _update(state, grad, self.n_steps, self.learning_rate, self.eps)
        for whole, part in zip(self._state(), state, strict=True):
            whole.index_copy_(0, rows, part)

    def step_touched(self, touched: Touched) -> None:
        """Take one Adam step of the rows that a batch has touched."""
        if self._native is not None and touched.gradient is not None:
            self._native_step(touched.columns, touched.by_column, touched.gradient)
        else:
            self.step(touched.columns, touched.weight_gradient())

    def _native_step(self, rows: Tensor, sums: tuple[Tensor, ...], matrix: Tensor) -> None:
        """Take one step with the gradients `sums` (as by_column) times matrix."""
        size = self._advance(rows)
        decays, self._owed = self._owed or [np.ones(len(rows), np.float32)] * 2, None
        arrays = (x.numpy() for x in (*sums, matrix))
        threads = torch.get_num_threads()
        self._native.adam_rows(
            *self._arrays, rows.numpy(), *decays, *arrays, size, self.eps, threads
        )

    def _advance(self, rows: Tensor) -> float:
        """Count one step, which `rows` take part in, and give its size."""
        self.n_steps += 1
        size = _step_size(self.learning_rate, self.n_steps)
        self.seen[rows.cpu().numpy()] = self.n_steps
        self._extend_missed(size)
        return size

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.mean, self.square

    def _extend_missed(self, size: float) -> None:
        end = self.n_steps - self._base
        if end == self._missed.shape[0]:
            self._missed = np.concatenate([self._missed, np.zeros_like(self._missed)])
        start = max(0, end - HORIZON)
        self._missed[start:end] += size * AGE_WEIGHTS[HORIZON - (end - start) :]

    @torch.no_grad()
    def flush(self) -> None:
        """Catch all rows up, so that `weight` is what dense Adam would have."""
        self._settle()
        rows = torch.arange(self.weight.shape[0], device=self.weight.device)
        factors = self._missed_by(rows)
        if self._native is None:
            self._catch_up_by_torch(rows, *factors)
        else:
            threads = torch.get_num_threads()
            self._native.catch_up(*self._arrays, rows.numpy(), *factors, self.eps, threads)
        self._forget()

    def state_dict(self) -> dict[str, Tensor]:
        """Give moments and counter; call `flush` first."""
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
        self.seen.fill(self.n_steps)
        self._forget()


def _correction(n_steps: int) -> float:
    """Bias correction of the second moment's root."""
    return math.sqrt(1 - BETA2**n_steps)


def _step_size(learning_rate: float, n_steps: int) -> float:
    return learning_rate * _correction(n_steps) / (1 - BETA1**n_steps)


@torch.no_grad()
def _update(
    state: Sequence[Tensor], grad: Tensor, n_steps: int, learning_rate: float, eps: float
) -> None:
    """Fused step of torch.optim.Adam, without its bookkeeping for each parameter."""
    weight, mean, square = state
    torch._fused_adam_(
        [weight],
        [grad],
        [mean],
        [square],
        [],
        [torch.tensor(float(n_steps), device=weight.device)],
        lr=learning_rate,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=0.0,
        eps=eps / _correction(n_steps),
        amsgrad=False,
        maximize=False,
    )
