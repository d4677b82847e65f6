"""One step of Adam over a network's weights, in one process or several."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ssbhash.inputs import Batch, SparseBatch, Touched
from ssbhash.nn import Autoencoder
from ssbhash.training import distributed
from ssbhash.training.adam import FlatAdam, RowAdam

# Keras' epsilon, as in the reference implementation.
ADAM_EPS = 1e-7


class Optimizer:
    """Adam; the first layer's rows apart where batches are sparse."""

    def __init__(self, network: Autoencoder, learning_rate: float, sparse: bool) -> None:
        first = network.encoder.first.weight
        self.rows = RowAdam(first, learning_rate, eps=ADAM_EPS) if sparse else None
        learned = [p for p in network.parameters() if p.requires_grad]
        dense = [p for p in learned if not (sparse and p is first)]
        self.dense = FlatAdam(dense, learning_rate, eps=ADAM_EPS)

    def attach(self, x: Batch, columns: Tensor | None = None) -> Batch:
        """Make the first layer's rows current that a sparse batch touches.

        `columns` are those that any process touches, where there are several.
        """
        if self.rows is None or not isinstance(x, SparseBatch):
            return x
        self.touched = Touched(x)
        self.columns = self.touched.columns if columns is None else columns
        self.rows.catch_up(self.columns)
        return replace(x, touched=self.touched)

    def step(self, loss: Tensor) -> None:
        """Differentiate, add up over the processes, and update."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.update(self.dense.gradients())

    def update(self, gradients: list[Tensor]) -> None:
        """Update by the gradients of all parameters in turn; the first layer has its own."""
        if distributed.world_size() == 1:
            self.dense.step(gradients)
            if self.rows is not None:
                self.rows.step_touched(self.touched)
            return
        whole = torch.cat(gradients) if len(gradients) > 1 else gradients[0]
        distributed.add_up(whole)
        self.dense.step([whole])
        if self.rows is not None:
            gradient = self.touched.weight_gradient()
            mine = torch.searchsorted(self.columns, self.touched.columns)
            whole = gradient.new_zeros(len(self.columns), gradient.shape[1])
            gradient = whole.index_copy_(0, mine, gradient)
            distributed.add_up(gradient)
            self.rows.step(self.columns, gradient)

    def flush(self) -> None:
        """Make every weight current."""
        if self.rows is not None:
            self.rows.flush()

    def state_dict(self) -> dict[str, Tensor]:
        """Give moments and counters; call `flush` first."""
        state = with_prefix("dense.", self.dense.state_dict())
        return state | with_prefix("rows.", self.rows.state_dict() if self.rows else {})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self.dense.load_state_dict(without_prefix("dense.", state))
        if self.rows is not None:
            self.rows.load_state_dict(without_prefix("rows.", state))


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put `prefix` before every name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def without_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors whose name begins with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
