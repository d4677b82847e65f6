"""The training loop, its optimiser, checkpoints, and several processes."""

from ssbhash.training import distributed
from ssbhash.training.loop import Callback, Data, Options, Outcome, Training
from ssbhash.training.torch_state import own_torch_state

__all__ = [
    "Callback",
    "Data",
    "Options",
    "Outcome",
    "Training",
    "distributed",
    "own_torch_state",
]
