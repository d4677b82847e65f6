"""The paper's comparison: data sets, the grid of trainings, its report."""

from ssbhash.paper import datasets, grid, report
from ssbhash.paper.datasets import Dataset

__all__ = ["Dataset", "datasets", "grid", "report"]
