"""The training loop, its optimiser, checkpoints, and several processes."""

from ssbhash.training import distributed
from ssbhash.training.loop import Data, Options, Outcome, Training

__all__ = ["Data", "Options", "Outcome", "Training", "distributed"]
