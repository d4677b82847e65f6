"""What the labelled items tell of the others, before a network is trained.

Candidates are logistic regressions on the first principal components, few or many, and
label spreading over the graph of nearest neighbours (Zhou et al., NeurIPS 2003) in the same
spaces. Which of them are right differs more between data sets than any network makes up
for: on short titles with 5 labels a class a logistic regression on 20 components is right
three times in four, on 400 one in two; on web snippets label spreading over all 400 beats
both. Cross-validation on the labelled items chooses; the beliefs are the mean of the chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from ssbhash.arrays import Ids
from ssbhash.inputs import ClassLabels, RowSource

Floats = npt.NDArray[np.float32]
Parameters = npt.NDArray[np.float64]

# Neighbours of an item, by cosine: a twentieth of a class, within these bounds.
LEAST_NEIGHBOURS, MOST_NEIGHBOURS = 3, 10
# Items among which neighbours are looked for, at most; labels spread over these.
N_ANCHORS = 1 << 14
# Principal components, at most, below all of them.
MOST_COMPONENTS = 128
# Inverse strengths of the logistic regression, and shares that label spreading passes on.
STRENGTHS = (0.1, 1.0)
PASSED_ON = (0.8, 0.95)
# Label spreading ends where this share of a label is still on its way.
LEFT_TO_SPREAD = 0.1
# Folds of the cross-validation, labelled items in it at most, and candidates in the mean.
N_FOLDS = 5
MOST_VALIDATED = 4096
N_CHOSEN = 3
# Probabilities below count as this in the score: one sure mistake decides nothing.
LEAST_PROBABILITY = 1e-3
# Classes from which on only the cheapest candidates are tried, on one fold, in fewer iterations.
MANY_CLASSES = 100
MOST_ITERATIONS, MOST_ITERATIONS_OF_MANY = 60, 15
_BLOCK_ROWS = 512
# Most features whose covariance matrix is formed.
_COVARIANCE_FEATURES = 1024


@dataclass(frozen=True)
class Beliefs:
    """What is believed of all training items.

    Parameters
    ----------
    probabilities
        Of the classes, float32 [n, n_classes].
    neighbours
        Ids of the nearest items, int64 [n, n_neighbours].
    informative
        Whether the candidates chosen predict held-out labels better than their frequencies.
    report
        Candidates with their scores, and the chosen ones; for `report_`.
    """

    probabilities: Floats
    neighbours: Ids
    informative: bool
    report: dict[str, Any]


def believe(rows: RowSource, labels: ClassLabels, seed: int) -> Beliefs:
    """Predict the hidden labels.

    Parameters
    ----------
    rows
        Features, dense: float32 [n, n_features].
    labels
        Of the same items, some of them known.
    seed
        Of the folds, and of the anchors where there are more items.
    """
    rng = np.random.default_rng((seed, 2))
    all_known = np.flatnonzero(labels.numbers.reshape(len(labels.numbers), -1)[:, 0] >= 0)
    anchors = _anchors(len(rows), all_known, rng)
    target = _target(labels, anchors)
    known = np.flatnonzero(np.isin(anchors, all_known))
    folds = _folds(known, target, rng)
    candidates = _candidates(_dense(rows, anchors), target, known, folds, labels.multilabel)
    chosen = _chosen(candidates)
    spreading = [c for c in candidates if isinstance(c.method, _Spreading)]
    space = min(spreading, key=lambda c: c.loss).method.space
    fitted = [c.method.fit(target, known) for c in chosen]
    probabilities = np.empty((len(rows), target.shape[1]), np.float32)
    neighbours = np.empty((len(rows), space.n_neighbours), np.int64)
    place = np.full(len(rows), -1)
    place[anchors] = np.arange(len(anchors))
    for start in range(0, len(rows), _BLOCK_ROWS):
        ids = np.arange(start, min(start + _BLOCK_ROWS, len(rows)))
        x = _dense(rows, ids)
        probabilities[ids] = np.mean([f.predict(x, place[ids]) for f in fitted], axis=0)
        neighbours[ids] = anchors[space.nearest(x, place[ids])[1].numpy()]
    held = np.concatenate([known[:0], *folds])
    frequencies = _loss(
        np.broadcast_to(target[known].mean(0), (len(held), target.shape[1])),
        target[held],
        labels.multilabel,
    )
    mean = _mean_loss(chosen)
    report = {
        "candidates": [c.description for c in candidates],
        "chosen": [c.description for c in chosen],
        "log_loss": mean,
        "log_loss_of_frequencies": frequencies,
        "n_validated": len(held),
        "neighbours_in_dimensions": space.width,
    }
    # Without labels to spare, there is nothing that speaks against the candidates.
    return Beliefs(probabilities, neighbours, not len(held) or mean < frequencies, report)


class _Space:
    """The items in the first principal components of the anchors, or in all of them.

    Parameters
    ----------
    x
        Anchors, float32 [n_anchors, n_features].
    mean, axes
        Of the anchors; axes [n_features, width], or None for all features as they are.
    n_neighbours
        Of an item in the graph.
    """

    def __init__(self, x: Tensor, mean: Tensor, axes: Tensor | None, n_neighbours: int) -> None:
        self.anchors, self.mean, self.axes = x, mean, axes
        self.n_neighbours = n_neighbours
        projected = self._projected(x)
        self.width = projected.shape[1]
        self.scale = 1 / float(projected.square().mean().sqrt().clamp_min(1e-12))

    @cached_property
    def unit(self) -> Tensor:
        """Projected anchors of unit length."""
        return F.normalize(self._projected(self.anchors), dim=1)

    def _projected(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        return centred if self.axes is None else centred @ self.axes

    def coordinates(self, x: Tensor) -> Tensor:
        """Coordinates of unit scale [m, width]."""
        return self._projected(x) * self.scale

    def nearest(self, x: Tensor, place: Ids) -> tuple[Tensor, Tensor]:
        """Cosines and places of the nearest anchors [m, n_neighbours], without the item itself.

        `place` [m] is that of each item among the anchors, -1 where it is none.
        """
        cosine = F.normalize(self._projected(x), dim=1) @ self.unit.t()
        own = torch.from_numpy(np.flatnonzero(place >= 0))
        if len(self.unit) > 1:
            cosine[own, torch.from_numpy(place[place >= 0])] = -2.0
        found = cosine.topk(self.n_neighbours, dim=1)
        return found.values, found.indices

    @cached_property
    def graph(self) -> Any:
        """Symmetric, normalised weights of neighbouring anchors, scipy CSR."""
        n = len(self.anchors)
        ids, weights = [], []
        for start in range(0, n, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n)
            cosine = self.unit[start:stop] @ self.unit.t()
            if n > 1:
                cosine[torch.arange(stop - start), torch.arange(start, stop)] = -2.0
            found = cosine.topk(self.n_neighbours, dim=1)
            ids.append(found.indices)
            weights.append(_edge_weights(found.values))
        starts = np.arange(0, n * self.n_neighbours + 1, self.n_neighbours)
        parts = torch.cat(weights).numpy().ravel(), torch.cat(ids).numpy().ravel(), starts
        graph = scipy.sparse.csr_matrix(parts, shape=(n, n))
        graph = graph.maximum(graph.T)
        degree = np.asarray(graph.sum(1)).ravel() ** -0.5
        scale = scipy.sparse.diags(degree.astype(np.float32))
        return (scale @ graph @ scale).tocsr()


def _edge_weights(cosine: Tensor) -> Tensor:
    return cosine.clamp_min(0) ** 3 + 1e-6


class _Fitted(Protocol):
    def predict(self, x: Tensor, place: Ids) -> Floats:
        """Probabilities of items [m, C]; `place` is theirs among the anchors, -1 if none."""


@dataclass(frozen=True)
class _Regression:
    """Logistic regression on the coordinates of a space."""

    space: _Space
    strength: float
    multilabel: bool

    def fit(self, target: Floats, known: Ids) -> _FittedRegression:
        """Minimise strength * cross-entropy + squared weights / 2."""
        x = self.space.coordinates(self.space.anchors[known]).numpy()
        y = target[known]
        n_weights = x.shape[1] * y.shape[1]

        def loss(parameters: Parameters) -> tuple[float, Parameters]:
            weight, bias = np.split(parameters.astype(np.float32), [n_weights])
            weight = weight.reshape(x.shape[1], y.shape[1])
            scores = torch.from_numpy(x @ weight + bias)
            aim = torch.from_numpy(y)
            if self.multilabel:
                found = torch.sigmoid(scores)
                each = F.binary_cross_entropy_with_logits(scores, aim, reduction="sum")
            else:
                logs = F.log_softmax(scores, 1)
                found, each = logs.exp(), -(aim * logs).sum()
            slope = (found - aim).numpy()
            penalty = np.square(weight, dtype=np.float64).sum() / (2 * self.strength)
            by_weight = x.T @ slope + weight / self.strength
            gradient = np.concatenate([by_weight.ravel(), slope.sum(0)]).astype(np.float64)
            return (float(each) + penalty) / len(x), gradient / len(x)

        n = MOST_ITERATIONS_OF_MANY if y.shape[1] > MANY_CLASSES else MOST_ITERATIONS
        # Not torch's: its optimisers import the compiler, which takes a second and 100 MB.
        start = np.zeros(n_weights + y.shape[1])
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", options={"maxiter": n, "ftol": 1e-7}
        )
        parameters = torch.from_numpy(found.x.astype(np.float32))
        weight, bias = parameters[:n_weights], parameters[n_weights:]
        return _FittedRegression(self, weight.view(x.shape[1], y.shape[1]), bias)


@dataclass(frozen=True)
class _FittedRegression:
    method: _Regression
    weight: Tensor
    bias: Tensor

    def predict(self, x: Tensor, place: Ids) -> Floats:
        scores = torch.addmm(self.bias, self.method.space.coordinates(x), self.weight)
        found = torch.sigmoid(scores) if self.method.multilabel else torch.softmax(scores, 1)
        return np.asarray(found.numpy())


@dataclass(frozen=True)
class _Spreading:
    """Label spreading over the graph of a space."""

    space: _Space
    strength: float
    multilabel: bool

    def fit(self, target: Floats, known: Ids) -> _FittedSpreading:
        """Pass labels on, `strength` of what arrives at each anchor."""
        # A further column spreads from all known anchors: what share of it is a class's?
        given = np.zeros((len(target), target.shape[1] + 1), np.float32)
        given[known, :-1], given[known, -1] = target[known], 1
        spread = given
        for _ in range(math.ceil(math.log(LEFT_TO_SPREAD) / math.log(self.strength))):
            spread = self.strength * (self.space.graph @ spread) + (1 - self.strength) * given
        share, total = spread[:, :-1], spread[:, -1:]
        if self.multilabel:
            return _FittedSpreading(self, (share / np.maximum(total, 1e-12)).clip(0, 1))
        # Classes get the mass that their labels have (Zhu, Ghahramani and Lafferty, ICML 2003).
        mass = target[known].sum(0) + 1
        share = share * (mass / np.maximum(share.sum(0), 1e-9)) + 1e-9 * mass
        return _FittedSpreading(self, share / share.sum(1, keepdims=True))


@dataclass(frozen=True)
class _FittedSpreading:
    method: _Spreading
    anchors: Floats

    def predict(self, x: Tensor, place: Ids) -> Floats:
        found = self.anchors[place]
        others = np.flatnonzero(place < 0)
        if len(others):
            cosine, near = self.method.space.nearest(x[others], place[others])
            weights = _edge_weights(cosine)
            share = (weights / weights.sum(1, keepdim=True))[..., None].numpy()
            found[others] = (share * self.anchors[near.numpy()]).sum(1)
        return found


@dataclass(frozen=True)
class _Candidate:
    """A method, and what it predicted of labelled anchors while their labels were hidden."""

    method: Any
    held_out: Floats
    target: Floats
    multilabel: bool

    @property
    def loss(self) -> float:
        """Mean log loss."""
        return _loss(self.held_out, self.target, self.multilabel)

    @property
    def description(self) -> dict[str, Any]:
        """Form for `report_`."""
        name = "logistic regression" if isinstance(self.method, _Regression) else "label spreading"
        return {
            "method": name,
            "n_dimensions": self.method.space.width,
            "strength": self.method.strength,
            "log_loss": self.loss,
        }


def _candidates(
    x: Tensor, target: Floats, known: Ids, folds: list[Ids], multilabel: bool
) -> list[_Candidate]:
    """Cross-validate the logistic regressions, then label spreading where they were best."""
    many = target.shape[1] > MANY_CLASSES
    spaces = _spaces(x, target.shape[1])
    spaces = [spaces[-2], spaces[-1]] if many and len(spaces) > 1 else spaces
    strengths, passed_on = (s[-1:] if many else s for s in (STRENGTHS, PASSED_ON[::-1]))

    def validated(method: _Regression | _Spreading) -> _Candidate:
        held_out = [target[:0]]
        for fold in folds:
            fitted: _Fitted = method.fit(target, np.setdiff1d(known, fold))
            held_out.append(fitted.predict(x[fold], fold))
        held = np.concatenate([known[:0], *folds])
        return _Candidate(method, np.concatenate(held_out), target[held], multilabel)

    found = [validated(_Regression(s, c, multilabel)) for s in spaces for c in strengths]
    best = min(found, key=lambda c: c.loss).method.space
    for space in {id(s): s for s in (best, spaces[-1])}.values():
        found += [validated(_Spreading(space, share, multilabel)) for share in passed_on]
    return found


def _spaces(x: Tensor, n_classes: int) -> list[_Space]:
    """As many components as classes, twice as many, 64, 128, and all features."""
    mean = x.mean(0)
    most = min(MOST_COMPONENTS, *x.shape)
    axes = _principal_axes(x - mean, most)
    widths = sorted({min(n, most) for n in (n_classes, 2 * n_classes, 64, MOST_COMPONENTS)})
    found = [axes[:, :width] for width in widths if width < x.shape[1]]
    n_neighbours = min(max(len(x) // (20 * n_classes), LEAST_NEIGHBOURS), MOST_NEIGHBOURS)
    n_neighbours = max(1, min(n_neighbours, len(x) - 1))
    return [_Space(x, mean, each, n_neighbours) for each in (*found, None)]


def _principal_axes(centred: Tensor, n_axes: int) -> Tensor:
    """Directions of the largest variance [n_features, n_axes]."""
    if centred.shape[1] <= _COVARIANCE_FEATURES:
        vectors: Tensor = torch.linalg.eigh(centred.t() @ centred).eigenvectors
        return vectors.flip(1)[:, :n_axes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        axes: Tensor = torch.svd_lowrank(centred, n_axes, niter=4)[2]
    return axes


def _chosen(candidates: list[_Candidate]) -> list[_Candidate]:
    """Choose candidates, perhaps one twice, whose mean has the least log loss."""
    chosen: list[_Candidate] = []
    for _ in range(N_CHOSEN):
        chosen.append(min(candidates, key=lambda c: _mean_loss([*chosen, c])))
    return chosen


def _mean_loss(chosen: list[_Candidate]) -> float:
    """Log loss of the mean of what candidates predicted."""
    mean = np.mean([c.held_out for c in chosen], axis=0)
    return _loss(mean, chosen[0].target, chosen[0].multilabel)


def _loss(probabilities: Floats, target: Floats, multilabel: bool) -> float:
    """Mean log loss over items, summed over the labels of an item; 0 without items."""
    if not len(target):
        return 0.0
    likelihood = target * np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    if multilabel:
        likelihood = likelihood + (1 - target) * np.log(
            np.maximum(1 - probabilities, LEAST_PROBABILITY)
        )
    return float(-likelihood.sum(1).mean())


def _anchors(n_items: int, known: Ids, rng: np.random.Generator) -> Ids:
    """All items, or half of the most allowed labelled and the rest drawn from all others."""
    if n_items <= N_ANCHORS:
        return np.arange(n_items)
    labelled = rng.permutation(known)[: N_ANCHORS // 2]
    others = np.setdiff1d(np.arange(n_items), labelled)
    return np.sort(np.concatenate([labelled, rng.choice(others, N_ANCHORS - len(labelled), False)]))


def _target(labels: ClassLabels, ids: Ids) -> Floats:
    """Labels [m, C] of 0 and 1, rows of 0 where hidden."""
    numbers = labels.numbers[ids]
    if labels.multilabel:
        return np.asarray(np.maximum(numbers, 0), np.float32)
    return np.asarray(np.equal.outer(numbers, np.arange(len(labels.classes))), np.float32)


def _folds(known: Ids, target: Floats, rng: np.random.Generator) -> list[Ids]:
    """Deal labelled anchors out to folds, class by class; none where there are too few."""
    if len(known) < 2 * N_FOLDS:
        return []
    order = rng.permutation(known)[:MOST_VALIDATED]
    order = order[np.argsort(target[order].argmax(1), kind="stable")]
    n_tried = 1 if target.shape[1] > MANY_CLASSES else N_FOLDS
    return [order[start::N_FOLDS] for start in range(n_tried)]


def _dense(rows: RowSource, ids: Ids) -> Tensor:
    batch = rows.take(ids)
    assert isinstance(batch, Tensor)
    return batch
