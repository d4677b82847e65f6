"""Kernels of training beside torch's operators: in C++ if the extension is built, else in torch."""

from ssbhash.kernels import native, plain
from ssbhash.kernels.choice import Kernels, kernels_for
from ssbhash.kernels.memory import in_large_pages
from ssbhash.kernels.types import (
    AdamState,
    ClassAndItem,
    ClassAndItemLoss,
    Dropout,
    Missed,
    Nonzeros,
    Norm,
    Rectified,
    SoftmaxLoss,
)

__all__ = [
    "AdamState",
    "ClassAndItem",
    "ClassAndItemLoss",
    "Dropout",
    "Kernels",
    "Missed",
    "Nonzeros",
    "Norm",
    "Rectified",
    "SoftmaxLoss",
    "in_large_pages",
    "kernels_for",
    "native",
    "plain",
]
