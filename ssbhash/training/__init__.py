"""The training loop, its optimiser, checkpoints, and several processes."""

from ssbhash.training import distributed
from ssbhash.training.beliefs import Beliefs, believe, better_scaled, log_loss
from ssbhash.training.loop import Callback, Data, Options, Outcome, Training, split
from ssbhash.training.torch_state import own_torch_state

__all__ = [
    "Beliefs",
    "Callback",
    "Data",
    "Options",
    "Outcome",
    "Training",
    "believe",
    "better_scaled",
    "distributed",
    "log_loss",
    "own_torch_state",
    "split",
]
