"""One step of Adam over a network's weights, in one process or several."""

from __future__ import annotations

import torch
from torch import Tensor

from ssbhash.nn import Autoencoder
from ssbhash.training import distributed
from ssbhash.training.adam import FlatAdam, RowAdam

# Keras' epsilon, as in the reference implementation.
ADAM_EPS = 1e-7


class Optimizer:
    """Adam on all weights of a network.

    Parameters
    ----------
    network
        Its weights are updated in place.
    learning_rate
        As in Adam.
    sparse
        Whether batches of features are sparse. Then only those rows of the network's
        `row_weight` are updated that a batch uses.
    """

    def __init__(self, network: Autoencoder, learning_rate: float, sparse: bool) -> None:
        self.network = network
        self.row_weight = network.row_weight() if sparse else None
        self.rows: RowAdam | None = None
        if self.row_weight is not None:
            self.rows = RowAdam(self.row_weight, learning_rate, eps=ADAM_EPS)
        learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
        dense = {name: p for name, p in learned.items() if p is not self.row_weight}
        found = network.averages()
        averages = [found[name] for name in dense] if found else []
        self.dense = FlatAdam(dense.values(), learning_rate, ADAM_EPS, averages)

    def catch_up(self, touched: Tensor | None) -> None:
        """Make the rows of `row_weight` current that a step is about to read.

        Parameters
        ----------
        touched
            Columns of the batch's features, unique and ascending, int64; None if features are
            dense. With several processes, those of the whole batch.
        """
        if self.rows is not None and touched is not None:
            self.rows.catch_up(touched)

    def step(self, loss: Tensor, touched: Tensor | None) -> None:
        """Differentiate, sum over the processes, and update.

        Parameters
        ----------
        loss
            [].
        touched
            As in `catch_up`.
        """
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = self.dense.take_gradients()
        if distributed.world_size() > 1:
            gradients = [torch.cat(gradients)]
            distributed.add_up(gradients[0])
        self.dense.step(gradients, self.network.average_share())
        if self.rows is not None and touched is not None:
            self.rows.step(*self._row_gradient(touched))

    def _row_gradient(self, touched: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of `row_weight` and their gradient, summed over the processes."""
        assert self.row_weight is not None
        gradient, self.row_weight.grad = self.row_weight.grad, None
        if gradient is None:
            return touched, self.row_weight.new_zeros(len(touched), self.row_weight.shape[1])
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        if distributed.world_size() == 1:
            return rows, values
        whole = values.new_zeros(len(touched), values.shape[1])
        whole.index_copy_(0, torch.searchsorted(touched, rows), values)
        distributed.add_up(whole)
        return touched, whole

    def flush(self) -> None:
        """Make every weight current."""
        if self.rows is not None:
            self.rows.flush()

    def state_dict(self) -> dict[str, Tensor]:
        """Return moments and counters; call `flush` first."""
        state = with_prefix("dense.", self.dense.state_dict())
        return state | with_prefix("rows.", self.rows.state_dict() if self.rows else {})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.dense.load_state_dict(without_prefix("dense.", state))
        if self.rows is not None:
            self.rows.load_state_dict(without_prefix("rows.", state))


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put `prefix` before every name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def without_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors whose name begins with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
