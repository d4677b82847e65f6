"""Estimators, a fitted model, and models on disk."""

from ssbhash.models import checks
from ssbhash.models.base import Hasher
from ssbhash.models.baselines import (
    BASELINES,
    ITQ,
    LSH,
    ClassifierCodes,
    Concatenated,
    SelfTrainingCodes,
    Sign,
    SpreadingCodes,
)
from ssbhash.models.methods import PHSGS, SSBVAE, VDSH, VDSHS, BernoulliVAE
from ssbhash.models.pipeline import Pipeline, load
from ssbhash.models.storage import saved_parameters
from ssbhash.registry import METHODS

__all__ = [
    "BASELINES",
    "ITQ",
    "LSH",
    "METHODS",
    "PHSGS",
    "SSBVAE",
    "VDSH",
    "VDSHS",
    "BernoulliVAE",
    "ClassifierCodes",
    "Concatenated",
    "Hasher",
    "Pipeline",
    "SelfTrainingCodes",
    "Sign",
    "SpreadingCodes",
    "checks",
    "load",
    "saved_parameters",
]
