"""The training loop, its optimiser, checkpoints, and several processes."""

from ssbhash.training import distributed
from ssbhash.training.beliefs import Beliefs, believe
from ssbhash.training.loop import Data, Options, Outcome, Training, split

__all__ = [
    "Beliefs",
    "Data",
    "Options",
    "Outcome",
    "Training",
    "believe",
    "distributed",
    "split",
]
