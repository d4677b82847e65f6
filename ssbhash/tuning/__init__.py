"""Hyper-parameters chosen by the labelled items."""

from ssbhash.tuning.hyperparameters import tune

__all__ = ["tune"]
