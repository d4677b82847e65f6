"""The training loop, its optimiser, checkpoints, and several processes."""

from ssbhash.training import distributed
from ssbhash.training.loop import Callback, Data, Options, Outcome, Training

__all__ = ["Callback", "Data", "Options", "Outcome", "Training", "distributed"]
