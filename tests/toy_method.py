"""A method as a contributor would add it: this file, and one line that registers it.

`tests/test_adding_a_method.py` trains it.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssbhash.inputs import Batch
from ssbhash.models import Hasher
from ssbhash.nn import Autoencoder, Linear, Shape, Terms, TrainingBatch, Weights


@dataclass(frozen=True)
class ToyWeights(Weights):
    """What the network has to be told beside its sizes."""

    push: float = 0.0


class ToyNetwork(Autoencoder):
    """reconstruction + push * mean over bits of 1 - tanh(logit)^2."""

    weights: ToyWeights

    def __init__(self, shape: Shape, weights: ToyWeights, generator: torch.Generator) -> None:
        super().__init__(shape, weights, generator)
        self.to_logits = Linear(shape.n_hidden_units, shape.n_bits, generator)

    def code_logits(self, x: Batch) -> Tensor:
        return self.encoder.project(x, self.to_logits)

    def terms(self, batch: TrainingBatch, generator: torch.Generator) -> Terms:
        code = torch.tanh(self.to_logits(self.encoder(batch.x)))
        reconstruction = self.reconstruction(code, batch.target)
        push = (1 - code.square()).mean()
        loss = reconstruction + self.weights.push * push
        return {"reconstruction": reconstruction, "push": push, "loss": loss}


@dataclass(eq=False, repr=False)
class Toy(Hasher):
    """Autoencoder that pushes its codes to +-1.

    Parameters
    ----------
    push
        Weight of the push.
    """

    method: ClassVar[str] = "toy"
    network: ClassVar[type[Autoencoder]] = ToyNetwork

    _: KW_ONLY
    push: float = 1.0

    def _weights(self) -> ToyWeights:
        return ToyWeights(push=float(self.push))
