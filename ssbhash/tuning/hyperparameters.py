"""Chooses hyper-parameters by retrieval among the labelled training items, with Optuna.

Importing this module needs the `train` extra; calling `tune` needs the `tune` extra.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from ssbhash.arrays import as_count
from ssbhash.models import Hasher
from ssbhash.tuning.cross_validation import Validation
from ssbhash.tuning.study import (
    BudgetedSearch,
    Trial,
    import_optuna,
    open_study,
    quiet,
    standard_error,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[str, "BaseDistribution"]


@dataclass(frozen=True)
class TuningResult:
    """What `tune` found.

    Parameters
    ----------
    trials : tuple of Trial
        All trials. The first is the estimator as it was given.
    k, n_folds : int
        The score is P@k, cross-validated over `n_folds` folds.
    hasher : Hasher
        The estimator with the best parameters, fitted to all labels if `refit`.
    interrupted : bool
        Whether Ctrl-C ended the search early.
    """

    trials: tuple[Trial, ...]
    k: int
    n_folds: int
    hasher: Any
    interrupted: bool = False

    @property
    def default(self) -> Trial:
        """The estimator as it was given."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The trial of the best score; the first of equal ones."""
        return max((one for one in self.trials if one.state == "complete"), key=lambda t: t.score)

    @property
    def best_parameters(self) -> dict[str, Any]:
        """The tuned parameters of the best trial."""
        return self.best.parameters

    @property
    def best_score(self) -> float:
        """P@k of the best trial, mean over the folds."""
        return self.best.score

    @property
    def gain(self) -> float:
        """Best score minus that of the estimator as it was given; never negative."""
        return self.best.score - self.default.score

    @property
    def gain_standard_error(self) -> float:
        """Standard error of `gain`, from the differences of each fold."""
        pairs = zip(self.best.fold_scores, self.default.fold_scores, strict=True)
        return standard_error([best - default for best, default in pairs])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the estimator, for JSON."""
        score = {"score": self.best.score, "standard_error": self.best.standard_error}
        return {
            "best": {"trial": self.best.number, "parameters": self.best_parameters, **score},
            "default": {
                "score": self.default.score,
                "standard_error": self.default.standard_error,
            },
            "gain": self.gain,
            "gain_standard_error": self.gain_standard_error,
            "metric": f"P@{self.k}",
            "folds": self.n_folds,
            "interrupted": self.interrupted,
            "trials": [
                {**asdict(t), "score": t.score if t.fold_scores else None} for t in self.trials
            ],
        }

    def table(self) -> str:
        """Write the trials as text, best first."""
        names = sorted({name for trial in self.trials for name in trial.parameters})
        lines = [["trial", f"P@{self.k}", "error", *names, "state"]]
        for t in sorted(self.trials, key=lambda t: (t.state != "complete", -t.score)):
            values = [_short(t.parameters.get(name)) for name in names]
            state = f"{t.state}, as given" if t is self.default else t.state
            lines.append([str(t.number), _short(t.score), _short(t.standard_error), *values, state])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )


def tune(
    hasher: Any,
    X: Any,
    y: Any,
    target: Any = None,
    *,
    space: Space | None = None,
    n_trials: int | None = 30,
    seconds: float | None = None,
    n_folds: int = 5,
    k: int | None = None,
    storage: Any = None,
    study_name: str = "ssbhash",
    refit: bool = False,
    seed: int = 0,
    verbose: bool = True,
) -> TuningResult:
    """Choose an estimator's hyper-parameters by the labels of its training items alone.

    The labelled items are divided into folds, each class evenly. For each fold:

    1. its labels are hidden;
    2. the estimator is trained on all items;
    3. the fold's items are queries to the codes of the other labelled items.

    The score is P@k, mean over the folds. By default k is the same share of the labelled
    items that 100 is of all items, but at least 10. It is never more than the mean number
    of labelled items that are relevant to a query: beyond that P@k measures the sizes of
    the classes.

    The first trial is the estimator as it is given, so the best trial is never worse.
    Compare `gain` with its standard error to tell it from luck. A trial that is worse than
    the median of the others after two folds is stopped.

    Parameters
    ----------
    hasher : estimator
        Such as `SSBVAE(n_bits=32)`. Parameters that `space` does not name stay as they are.
    X, y, target
        As in `fit`. Needs at least `n_folds` labelled items, two of them of one class.
    space : dict of str to optuna distribution, optional
        What to search; by default `default_space(hasher)`.
    n_trials : int, optional
        Number of trials, with those found in `storage`. None for no limit but `seconds`.
    seconds : float, optional
        No trial starts later than this after the call, but the first always runs.
    n_folds : int
        Number of folds: trainings of a trial.
    k : int, optional
        Neighbours looked at; by default as above.
    storage : path, URL or optuna storage, optional
        Where to keep the trials: a journal file, or a URL such as "sqlite:///tune.db". The
        same call goes on from what it finds there, with the trials of an uninterrupted
        search.
    study_name : str
        Name of the study in `storage`.
    refit : bool
        Train the best estimator in the end, with all labels.
    seed : int
        Of the folds and of the search.
    verbose : bool
        Show a progress bar over trials, if standard error is a terminal.

    Returns
    -------
    TuningResult
        After Ctrl-C too, with `interrupted` set, if the first trial was finished.

    Raises
    ------
    ValueError
        If there are too few labels, an argument is out of range, or `storage` holds the
        study of another estimator, data or search.
    ModuleNotFoundError
        If optuna is not installed.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssbhash import SSBVAE, tune
    >>> X, y = load_digits(return_X_y=True)
    >>> y[100:] = -1  # unlabelled
    >>> hasher = SSBVAE(n_bits=16, n_epochs=1, n_hidden_units=32)
    >>> result = tune(hasher, X[:300], y[:300], n_trials=2, n_folds=2)
    >>> sorted(result.best_parameters)[:2], result.gain >= 0
    (['class_scale', 'contrast_weight'], True)
    """
    optuna = import_optuna()
    _check_budget(n_trials, seconds, n_folds, k)
    validation = Validation.of(hasher, X, y, target, n_folds, k, seed)
    space = default_space(hasher) if space is None else _checked_space(space, hasher)
    with quiet(optuna):
        study = open_study(optuna, storage, study_name, _fingerprint(validation, space, seed))
        search = BudgetedSearch(study, validation, dict(space), seed)
        interrupted = search.run(n_trials, seconds, verbose)
        trials = search.trials()
    found = TuningResult(trials, validation.k, n_folds, None, interrupted)
    best: Any = clone(hasher).set_params(**found.best_parameters)
    if refit and not interrupted:
        best.fit(X, y, target=target)
    return replace(found, hasher=best)


def default_space(hasher: Hasher) -> dict[str, BaseDistribution]:
    """Return what `tune` searches by default: the weights of an estimator's loss.

    The ranges of alpha, beta and gamma include all values that Nanculef et al. (arXiv
    2007.08799) chose; beta is a power of two.

    Parameters
    ----------
    hasher : Hasher
        An estimator.

    Returns
    -------
    dict of str to optuna distribution
        By name of the parameter.

    Examples
    --------
    >>> from ssbhash import VDSHS
    >>> sorted(default_space(VDSHS()))
    ['alpha', 'beta']
    """
    distributions = import_optuna().distributions
    known = hasher.get_params(deep=False)

    def log_uniform(low: float, high: float) -> BaseDistribution:
        found: BaseDistribution = distributions.FloatDistribution(low, high, log=True)
        return found

    if known.get("preset") == "default":
        return {
            "class_scale": distributions.FloatDistribution(0.3, 3, log=True),
            "contrast_weight": log_uniform(0.1, 10),
            "dropout": distributions.FloatDistribution(0.0, 0.6),
        }
    powers = tuple(2.0**-exponent for exponent in range(18))
    space = {"beta": distributions.CategoricalDistribution(powers)}
    if "alpha" in known:
        space["alpha"] = log_uniform(1e-5, 1e6)
    if "gamma" in known:
        space["gamma"] = log_uniform(1e-3, 1e6)
    return space


def _check_budget(n_trials: Any, seconds: Any, n_folds: Any, k: Any) -> None:
    """Check what limits a search.

    Raises
    ------
    TypeError, ValueError
        If one has the wrong type, is out of range, or there is no limit.
    """
    if n_trials is not None:
        as_count(n_trials, "n_trials", 1)
    elif seconds is None:
        raise ValueError("n_trials and seconds are both None: the search would never end")
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"seconds must be at least 0, got {seconds}")
    as_count(n_folds, "n_folds", 2)
    if k is not None:
        as_count(k, "k", 1)


def _fingerprint(validation: Validation, space: Space, seed: int) -> str:
    """Tell this search from others: all that changes a score or the next trial."""
    about = validation.fingerprint(), sorted(space.items()), seed
    return hashlib.sha256(repr(about).encode()).hexdigest()


def _checked_space(space: Any, hasher: Any) -> Space:
    base = import_optuna().distributions.BaseDistribution
    known = hasher.get_params(deep=False)
    if not isinstance(space, Mapping) or not space:
        raise ValueError("space must be a dict of at least one parameter to an optuna distribution")
    for name, distribution in space.items():
        if name not in known:
            raise ValueError(f"space names {name!r}, which {type(hasher).__name__} has not")
        if not isinstance(distribution, base):
            given = type(distribution).__name__
            raise TypeError(f"space[{name!r}] must be an optuna distribution, got {given}")
    return space


def _short(value: Any) -> str:
    return (
        f"{value:.4g}" if isinstance(value, int | float) else "-" if value is None else str(value)
    )
