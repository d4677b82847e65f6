"""One search for hyper-parameters: an Optuna study with its trials, which can be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ssbhash.tuning.cross_validation import Validation
from ssbhash.tuning.journal import Journal

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Parameters
    ----------
    number : int
        Its place in the study. Number 0 is the estimator as it was given.
    state : str
        "complete"; "pruned", stopped early because others were better; "failed", diverged.
    parameters : dict
        The tuned parameters by name.
    fold_scores : tuple of float
        P@k of each fold that was run.
    seconds : float
        Its duration.
    """

    number: int
    state: str
    parameters: dict[str, Any]
    fold_scores: tuple[float, ...]
    seconds: float

    @property
    def score(self) -> float:
        """Mean over the folds; nan without folds."""
        return float(np.mean(self.fold_scores)) if self.fold_scores else float("nan")

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over the folds; nan with fewer than two."""
        return standard_error(self.fold_scores)


class BudgetedSearch:
    """Trials of one study. Each is drawn from the seed, its number and the trials before it."""

    def __init__(
        self, study: Study, validation: Validation, space: dict[str, BaseDistribution], seed: int
    ) -> None:
        self.study, self.validation, self.space, self.seed = study, validation, space, seed
        given = validation.hasher.get_params(deep=False)
        self.given = {name: given[name] for name in space}

    def run(self, n_trials: int | None, seconds: float | None, verbose: bool) -> bool:
        """Search until the budget is spent; return True if Ctrl-C came first."""
        started = time.monotonic()
        bar = tqdm(total=n_trials, unit="trial", disable=None if verbose else True)
        with bar:
            bar.update(len(self._finished()))
            while True:
                finished = self._finished()
                has_default = any(trial.user_attrs.get("as_given") for trial in finished)
                if has_default and (
                    (n_trials is not None and len(finished) >= n_trials)
                    or (seconds is not None and time.monotonic() - started >= seconds)
                ):
                    return False
                try:
                    self._try(len(finished), as_given=not has_default)
                except KeyboardInterrupt:
                    if not has_default:
                        raise
                    return True
                bar.update()
                bar.set_postfix(best=f"{self.study.best_value:.3f}")

    def trials(self) -> tuple[Trial, ...]:
        """Return what has been tried; the estimator as it was given comes first."""
        found = [
            Trial(
                number=number,
                state=_STATES[trial.state.name],
                parameters=self.given if trial.user_attrs["as_given"] else dict(trial.params),
                fold_scores=tuple(trial.user_attrs["fold_scores"]),
                seconds=trial.user_attrs["seconds"],
            )
            for number, trial in enumerate(self._finished())
        ]
        return tuple(sorted(found, key=lambda trial: trial.number))

    def _finished(self) -> list[Any]:
        # A trial that was killed or interrupted has no "seconds", or no end: it is ignored.
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if "seconds" in t.user_attrs and t.state.is_finished()]

    def _try(self, number: int, as_given: bool) -> None:
        optuna = import_optuna()
        entropy = np.random.SeedSequence((self.seed, number)).generate_state(1)
        self.study.sampler = optuna.samplers.TPESampler(seed=int(entropy[0]))
        space = self.space
        if as_given:
            # The sampler accepts only values within the space.
            space = {n: d for n, d in space.items() if _is_in(self.given[n], d)}
            self.study.enqueue_trial({name: self.given[name] for name in space})
        trial = self.study.ask(fixed_distributions=space)
        started = time.perf_counter()
        scores: list[float] = []
        state: Any = optuna.trial.TrialState.COMPLETE
        try:
            for fold in self.validation.folds:
                scores.append(self.validation.score({} if as_given else trial.params, fold))
                trial.report(float(np.mean(scores)), len(scores))
                if (
                    not as_given
                    and len(scores) < len(self.validation.folds)
                    and trial.should_prune()
                ):
                    state = optuna.trial.TrialState.PRUNED
                    break
        except BaseException as error:
            diverged = isinstance(error, RuntimeError) and not as_given
            if not diverged:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                raise
            state = optuna.trial.TrialState.FAIL
        trial.set_user_attr("as_given", as_given)
        trial.set_user_attr("fold_scores", scores)
        trial.set_user_attr("seconds", time.perf_counter() - started)
        is_complete = state == optuna.trial.TrialState.COMPLETE
        self.study.tell(trial, float(np.mean(scores)) if is_complete else None, state=state)


_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def _is_in(value: Any, distribution: Any) -> bool:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return value in choices
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high


def import_optuna() -> Any:
    """Import optuna, an extra.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message says what to install.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        message = "tune needs optuna: pip install 'ssbhash[tune]'"
        raise ModuleNotFoundError(message, name="optuna") from error
    return optuna


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Silence optuna's remarks on studies and trials."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(optuna: Any, storage: Any, name: str, fingerprint: str) -> Study:
    """Make a study, or open the one that an earlier search began.

    Raises
    ------
    ValueError
        If the study is of another search, or its file is damaged or foreign.
    """
    if isinstance(storage, Path) or (isinstance(storage, str) and "://" not in storage):
        storage = optuna.storages.JournalStorage(Journal(Path(storage)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    study: Study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
    )
    found = study.user_attrs.get("fingerprint")
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("fingerprint", fingerprint)
    elif found != fingerprint:
        raise ValueError(
            f"storage has a study {name!r} of another search (estimator, data, labels, space, "
            "folds or seed differ): choose another storage or study_name"
        )
    return study


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; nan for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(np.std(values, ddof=1) / len(values) ** 0.5)
