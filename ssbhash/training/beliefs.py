"""Guesses hidden labels from the known ones, before a network is trained.

The candidates are logistic regressions on few or many principal components, and label
spreading over the graph of nearest neighbours (Zhou et al., NeurIPS 2003) in the same spaces.
The best one differs between data sets, by more than a network could make up for. On short
titles with 5 labels a class, a logistic regression is right for 3 of 4 items on 20 components,
but for 1 of 2 on 400. On web snippets label spreading over all 400 components beats both. So
cross-validation on the labelled items chooses; the beliefs are the mean of the chosen
candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ssbhash.arrays import Float32Array, Float64Array, Ids
from ssbhash.inputs import ClassLabels, RowSource
from ssbhash.training.torch_threads import as_many_as_pay

# Neighbours of an item, by cosine: a twentieth of the items of a class, within these bounds.
LEAST_NEIGHBOURS, MOST_NEIGHBOURS = 3, 10
# Most anchors: the items among which neighbours are searched, and over which labels spread.
N_ANCHORS = 1 << 14
# Most principal components of a space that does not have all features.
MOST_COMPONENTS = 128
# Inverse strengths of regularisation, and shares that label spreading passes on.
STRENGTHS = (0.1, 1.0)
PASSED_ON = (0.8, 0.95)
# Label spreading stops when this share of a label has not arrived yet.
LEFT_TO_SPREAD = 0.1
# Folds of the cross-validation, most labelled items in it, and candidates in the mean.
N_FOLDS = 5
MOST_VALIDATED = 4096
N_CHOSEN = 3
# Labelled items on which two scalings of the features are compared. Features get a scale each if
# the log loss is then below this share of the other.
MOST_COMPARED = 1024
CLEARLY = 0.95
# Least probability in the score, so that a single sure mistake does not decide.
LEAST_PROBABILITY = 1e-3
# With more classes only the cheapest candidates are tried, on one fold, with fewer iterations.
MANY_CLASSES = 100
MOST_ITERATIONS, MOST_ITERATIONS_OF_MANY = 60, 15
# Items that are compared with all anchors together, and whose labels are predicted together.
_BLOCK_ROWS, _PREDICTED_ROWS = 128, 2048
# With more features, no covariance matrix is formed.
_COVARIANCE_FEATURES = 1024


@dataclass(frozen=True)
class Regression:
    """A logistic regression on the features: the mean of the best ones.

    Parameters
    ----------
    weight, bias
        float32 [n_features, n_classes] and [n_classes].
    log_loss
        On held-out labels; None if there are too few labels to hold some out.
    suffices
        Whether label spreading does not lower that loss; true without held-out labels.
    """

    weight: Tensor
    bias: Tensor
    log_loss: float | None
    suffices: bool


@dataclass(frozen=True)
class Beliefs:
    """Beliefs about all training items.

    Parameters
    ----------
    probabilities
        Class probabilities, float32 [n, n_classes].
    neighbours
        Ids of the nearest items, int64 [n, n_neighbours].
    informative
        Whether the chosen candidates predict held-out labels better than class frequencies.
    regression
        What the candidates can say of an item from its features alone.
    report
        The candidates with their scores, and the chosen ones, for `report_`.
    """

    probabilities: Float32Array
    neighbours: Ids
    informative: bool
    regression: Regression
    report: dict[str, Any]


def believe(rows: RowSource, labels: ClassLabels, seed: int, verbose: bool = False) -> Beliefs:
    """Predict the hidden labels.

    Parameters
    ----------
    rows
        Features, dense: float32 [n, n_features].
    labels
        Labels of the same items, some of them known.
    seed
        Of the folds, and of the choice of anchors.
    verbose
        Whether to show how many classifiers are validated.

    Returns
    -------
    Beliefs
        Class probabilities and neighbours of all items.
    """
    rng = np.random.default_rng((seed, 2))
    all_known = labels.known
    anchors = _anchors(len(rows), all_known, rng)
    target = labels.one_hot(anchors)
    known = np.flatnonzero(np.isin(anchors, all_known))
    folds = _folds(known, target, rng)
    x, mean = _centred(rows, anchors)
    candidates = _candidates(x, target, known, folds, labels.multilabel, verbose)
    chosen = _chosen(candidates)
    spreading = [c for c in candidates if isinstance(c.method, _Spreading)]
    space = min(spreading, key=lambda c: c.loss).method.space
    regressions = _chosen([c for c in candidates if isinstance(c.method, _Regression)])
    different = {id(c): c for c in (*chosen, *regressions)}
    fitted = {key: c.method.fit(target, known) for key, c in different.items()}
    probabilities = np.empty((len(rows), target.shape[1]), np.float32)
    neighbours = np.empty((len(rows), space.n_neighbours), np.int64)
    place = np.full(len(rows), -1)
    place[anchors] = np.arange(len(anchors))
    for start in range(0, len(rows), _PREDICTED_ROWS):
        ids = np.arange(start, min(start + _PREDICTED_ROWS, len(rows)))
        x = _dense(rows, ids) - mean
        probabilities[ids] = np.mean([fitted[id(c)].predict(x, place[ids]) for c in chosen], axis=0)
        neighbours[ids] = anchors[space.nearest(x, place[ids])[1].numpy()]
    held = np.concatenate([known[:0], *folds])
    frequencies = _loss(
        np.broadcast_to(target[known].mean(0), (len(held), target.shape[1])),
        target[held],
        labels.multilabel,
    )
    chosen_loss = _mean_loss(chosen)
    weight, bias = _mean_regression([fitted[id(c)] for c in regressions], mean)
    regression_loss = _mean_loss(regressions)
    measured = regression_loss if len(held) else None
    regression = Regression(weight, bias, measured, regression_loss <= chosen_loss)
    report = {
        "candidates": [c.description for c in candidates],
        "chosen": [c.description for c in chosen],
        "log_loss": chosen_loss,
        "log_loss_of_regressions": regression_loss,
        "log_loss_of_frequencies": frequencies,
        "n_validated": len(held),
        "neighbours_in_dimensions": space.width,
    }
    # With too few labels for a validation, the candidates are trusted.
    informative = not len(held) or chosen_loss < frequencies
    return Beliefs(probabilities, neighbours, informative, regression, report)


def log_loss(probabilities: Float32Array, labels: ClassLabels, ids: Ids) -> float:
    """Compute the mean log loss of class probabilities [m, C] of the labelled items `ids` [m]."""
    return _loss(probabilities, labels.one_hot(ids), labels.multilabel)


def better_scaled(
    one_scale: RowSource, own_scales: RowSource, labels: ClassLabels, seed: int
) -> tuple[RowSource, dict[str, float]]:
    """Choose how features are scaled: so that held-out labels are predicted better.

    Parameters
    ----------
    one_scale, own_scales
        The same items, dense: all features on one scale, or each on its own.
    labels
        Their labels, some of them known.
    seed
        Of the folds.

    Returns
    -------
    tuple
        `own_scales` if a logistic regression has a clearly smaller log loss there, else
        `one_scale`; and both losses, for `report_`. They are 0 if there are too few labels.
    """
    rng = np.random.default_rng((seed, 3))
    known = np.sort(rng.permutation(labels.known)[:MOST_COMPARED])
    target = labels.one_hot(known)
    places = np.arange(len(known))
    folds = _folds(places, target, rng)
    losses = []
    for rows in (one_scale, own_scales):
        x, _ = _centred(rows, known)
        space = _Space(x, None, 1)
        methods = (_Regression(space, c, labels.multilabel) for c in STRENGTHS)
        losses.append(min(_validated(m, x, target, places, folds).loss for m in methods))
    report = {"log_loss_one_scale": losses[0], "log_loss_own_scales": losses[1]}
    return (own_scales if losses[1] < CLEARLY * losses[0] else one_scale), report


class _Space:
    """A space of items: the first principal components of the anchors, or all features.

    Parameters
    ----------
    anchors
        float32 [n_anchors, n_features], minus their mean. So are all items below.
    axes
        Principal axes [n_features, width] of the anchors; None for all features.
    n_neighbours
        Neighbours of an item in the graph.
    """

    def __init__(self, anchors: Tensor, axes: Tensor | None, n_neighbours: int) -> None:
        self.anchors, self.axes, self.n_neighbours = anchors, axes, n_neighbours
        projected = self._projected(anchors)
        self.width = projected.shape[1]
        length = float(torch.linalg.vector_norm(projected)) / math.sqrt(projected.numel())
        self.scale = 1 / max(length, 1e-12)

    @cached_property
    def points(self) -> tuple[Tensor, Tensor]:
        """Projected anchors, and 1 / their lengths [n_anchors]."""
        projected = self._projected(self.anchors)
        lengths: Tensor = torch.linalg.vector_norm(projected, dim=1).clamp_min(1e-12)
        return projected, lengths.reciprocal()

    def _projected(self, x: Tensor) -> Tensor:
        return x if self.axes is None else torch.mm(x, self.axes)

    def coordinates(self, x: Tensor) -> Tensor:
        """Compute the coordinates [m, width] of items, of unit scale."""
        return self._projected(x) * self.scale

    def backwards(self, weight: Tensor) -> Tensor:
        """Turn weights of coordinates [width, C] into weights of features [n_features, C]."""
        return (weight if self.axes is None else self.axes @ weight) * self.scale

    def nearest(self, x: Tensor, place: Ids) -> tuple[Tensor, Tensor]:
        """Find cosines and places of the nearest anchors [m, n_neighbours].

        `place` [m] is the place of each item among the anchors, -1 if it is none. An item is
        not its own neighbour.
        """
        points, inverse_lengths = self.points
        # One array for all blocks: glibc fragments if torch takes and gives back large ones.
        block = torch.empty(min(len(x), _BLOCK_ROWS), len(points))
        found = []
        for start in range(0, len(x), _BLOCK_ROWS):
            rows = x[start : start + _BLOCK_ROWS]
            places = torch.from_numpy(place[start : start + _BLOCK_ROWS])
            # Scaled here: the anchors of unit length would be a second copy of them all.
            unit = F.normalize(self._projected(rows), dim=1)
            cosine = torch.mm(unit, points.t(), out=block[: len(rows)]).mul_(inverse_lengths)
            own = (places >= 0).nonzero()[:, 0]
            if len(points) > 1:
                cosine[own, places[own]] = -2.0
            found.append(cosine.topk(self.n_neighbours, dim=1))
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    @cached_property
    def graph(self) -> Any:
        """Symmetric, normalised weights between neighbouring anchors, scipy CSR."""
        n = len(self.anchors)
        cosine, ids = self.nearest(self.anchors, np.arange(n))
        starts = np.arange(0, n * self.n_neighbours + 1, self.n_neighbours)
        parts = _edge_weights(cosine).numpy().ravel(), ids.numpy().ravel(), starts
        graph = scipy.sparse.csr_matrix(parts, shape=(n, n))
        graph = graph.maximum(graph.T)
        degree = np.asarray(graph.sum(1)).ravel() ** -0.5
        scale = scipy.sparse.diags(degree.astype(np.float32))
        return (scale @ graph @ scale).tocsr()


def _edge_weights(cosine: Tensor) -> Tensor:
    return cosine.clamp_min(0) ** 3 + 1e-6


class _Fitted(Protocol):
    def predict(self, x: Tensor, place: Ids) -> Float32Array:
        """Predict class probabilities of items [m, C]; `place` as in `_Space.nearest`."""


@dataclass(frozen=True)
class _Regression:
    """Logistic regression on the coordinates of a space."""

    space: _Space
    strength: float
    multilabel: bool

    def fit(self, target: Float32Array, known: Ids) -> _FittedRegression:
        """Minimise strength * cross-entropy + squared weights / 2."""
        x = self.space.coordinates(self.space.anchors[known]).numpy()
        y = target[known]
        n_weights = x.shape[1] * y.shape[1]

        def loss(parameters: Float64Array) -> tuple[float, Float64Array]:
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
        with as_many_as_pay(2 * len(x) * n_weights):
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

    def predict(self, x: Tensor, place: Ids) -> Float32Array:
        scores = torch.addmm(self.bias, self.method.space.coordinates(x), self.weight)
        found = torch.sigmoid(scores) if self.method.multilabel else torch.softmax(scores, 1)
        return np.asarray(found.numpy())


@dataclass(frozen=True)
class _Spreading:
    """Label spreading over the graph of a space."""

    space: _Space
    strength: float
    multilabel: bool

    def fit(self, target: Float32Array, known: Ids) -> _FittedSpreading:
        """Spread labels; each anchor passes on the share `strength` of what it gets."""
        # The last column spreads from all known anchors. With several labels, a class's share of
        # it is its probability.
        given = np.zeros((len(target), target.shape[1] + 1), np.float32)
        given[known, :-1], given[known, -1] = target[known], 1
        spread = given
        for _ in range(math.ceil(math.log(LEFT_TO_SPREAD) / math.log(self.strength))):
            spread = self.strength * (self.space.graph @ spread) + (1 - self.strength) * given
        share, total = spread[:, :-1], spread[:, -1:]
        if self.multilabel:
            return _FittedSpreading(self, (share / np.maximum(total, 1e-12)).clip(0, 1))
        # Class mass normalisation: classes get the shares that they have among the labels (Zhu,
        # Ghahramani and Lafferty, ICML 2003).
        mass = target[known].sum(0) + 1
        share = share * (mass / np.maximum(share.sum(0), 1e-9)) + 1e-9 * mass
        return _FittedSpreading(self, share / share.sum(1, keepdims=True))


@dataclass(frozen=True)
class _FittedSpreading:
    method: _Spreading
    anchors: Float32Array

    def predict(self, x: Tensor, place: Ids) -> Float32Array:
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
    """A method, and its predictions for labelled anchors whose labels were hidden."""

    method: Any
    held_out: Float32Array
    target: Float32Array
    multilabel: bool

    @property
    def loss(self) -> float:
        """Mean log loss."""
        return _loss(self.held_out, self.target, self.multilabel)

    @property
    def description(self) -> dict[str, Any]:
        """Its entry in `report_`."""
        name = "logistic regression" if isinstance(self.method, _Regression) else "label spreading"
        return {
            "method": name,
            "n_dimensions": self.method.space.width,
            "strength": self.method.strength,
            "log_loss": self.loss,
        }


def _candidates(
    x: Tensor,
    target: Float32Array,
    known: Ids,
    folds: list[Ids],
    multilabel: bool,
    verbose: bool,
) -> list[_Candidate]:
    """Cross-validate logistic regressions, then label spreading in their best space."""
    many = target.shape[1] > MANY_CLASSES
    spaces = _spaces(x, target.shape[1])
    spaces = [spaces[-2], spaces[-1]] if many and len(spaces) > 1 else spaces
    strengths, passed_on = (s[-1:] if many else s for s in (STRENGTHS, PASSED_ON[::-1]))

    def validated(method: _Regression | _Spreading) -> _Candidate:
        return _validated(method, x, target, known, folds)

    regressions = [_Regression(s, c, multilabel) for s in spaces for c in strengths]
    bar = tqdm(regressions, "classifiers", disable=None if verbose else True)
    found = [validated(method) for method in bar]
    best = min(found, key=lambda c: c.loss).method.space
    for space in {id(s): s for s in (best, spaces[-1])}.values():
        found += [validated(_Spreading(space, share, multilabel)) for share in passed_on]
    return found


def _validated(
    method: _Regression | _Spreading,
    x: Tensor,
    target: Float32Array,
    known: Ids,
    folds: list[Ids],
) -> _Candidate:
    """Predict the labels of each fold from the other known ones."""
    held_out = [target[:0]]
    for fold in folds:
        fitted: _Fitted = method.fit(target, np.setdiff1d(known, fold))
        held_out.append(fitted.predict(x[fold], fold))
    held = np.concatenate([known[:0], *folds])
    return _Candidate(method, np.concatenate(held_out), target[held], method.multilabel)


def _spaces(x: Tensor, n_classes: int) -> list[_Space]:
    """Make the spaces: as many components as classes, twice as many, 64, 128; all features."""
    most = min(MOST_COMPONENTS, *x.shape)
    axes = _principal_axes(x, most)
    widths = sorted({min(n, most) for n in (n_classes, 2 * n_classes, 64, MOST_COMPONENTS)})
    found = [axes[:, :width] for width in widths if width < x.shape[1]]
    n_neighbours = min(max(len(x) // (20 * n_classes), LEAST_NEIGHBOURS), MOST_NEIGHBOURS)
    n_neighbours = max(1, min(n_neighbours, len(x) - 1))
    return [_Space(x, each, n_neighbours) for each in (*found, None)]


def _principal_axes(centred: Tensor, n_axes: int) -> Tensor:
    """Find the directions of the largest variance [n_features, n_axes]."""
    if centred.shape[1] <= _COVARIANCE_FEATURES:
        vectors: Tensor = torch.linalg.eigh(centred.t() @ centred).eigenvectors
        return vectors.flip(1)[:, :n_axes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        axes: Tensor = torch.svd_lowrank(centred, n_axes, niter=4)[2]
    return axes


def _chosen(candidates: list[_Candidate]) -> list[_Candidate]:
    """Choose candidates one by one, so that their mean has the least log loss.

    A candidate may be chosen more than once.
    """
    chosen: list[_Candidate] = []
    for _ in range(N_CHOSEN):
        chosen.append(min(candidates, key=lambda c: _mean_loss([*chosen, c])))
    return chosen


def _mean_regression(fitted: list[_FittedRegression], mean: Tensor) -> tuple[Tensor, Tensor]:
    """Average the scores of regressions: weight and bias for features before centring."""
    weights = [f.method.space.backwards(f.weight) for f in fitted]
    weight = torch.stack(weights).mean(0)
    return weight, torch.stack([f.bias for f in fitted]).mean(0) - mean @ weight


def _mean_loss(chosen: list[_Candidate]) -> float:
    """Compute the log loss of the mean of some candidates' predictions."""
    mean = np.mean([c.held_out for c in chosen], axis=0)
    return _loss(mean, chosen[0].target, chosen[0].multilabel)


def _loss(probabilities: Float32Array, target: Float32Array, multilabel: bool) -> float:
    """Compute the log loss, a sum over the labels of an item, mean over items; 0 without items."""
    if not len(target):
        return 0.0
    likelihood = target * np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    if multilabel:
        likelihood = likelihood + (1 - target) * np.log(
            np.maximum(1 - probabilities, LEAST_PROBABILITY)
        )
    return float(-likelihood.sum(1).mean())


def _anchors(n_items: int, known: Ids, rng: np.random.Generator) -> Ids:
    """Choose the anchors: all items, or N_ANCHORS of them, up to half of these labelled."""
    if n_items <= N_ANCHORS:
        return np.arange(n_items)
    labelled = rng.permutation(known)[: N_ANCHORS // 2]
    others = np.setdiff1d(np.arange(n_items), labelled)
    return np.sort(np.concatenate([labelled, rng.choice(others, N_ANCHORS - len(labelled), False)]))


def _folds(known: Ids, target: Float32Array, rng: np.random.Generator) -> list[Ids]:
    """Divide labelled anchors into folds, class by class; no folds if there are too few."""
    if len(known) < 2 * N_FOLDS:
        return []
    order = rng.permutation(known)[:MOST_VALIDATED]
    order = order[np.argsort(target[order].argmax(1), kind="stable")]
    n_tried = 1 if target.shape[1] > MANY_CLASSES else N_FOLDS
    return [order[start::N_FOLDS] for start in range(n_tried)]


def _centred(rows: RowSource, ids: Ids) -> tuple[Tensor, Tensor]:
    """Return items minus their mean, and the mean."""
    x = _dense(rows, ids)
    mean = x.mean(0)
    return x.sub_(mean), mean


def _dense(rows: RowSource, ids: Ids) -> Tensor:
    batch = rows.take(ids)
    assert isinstance(batch, Tensor)
    return batch
