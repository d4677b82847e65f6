"""The training loop: batches in, Adam, validation, checkpoints, history.

Everything random is drawn from (seed, epoch), so a run that is resumed goes on exactly as
one that was never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssbhash.arrays import Ids, NotFiniteError
from ssbhash.data import is_labelled
from ssbhash.inputs import Batch, ClassLabels, RowSource, SparseBatch, moved
from ssbhash.nn import Autoencoder, TrainingBatch
from ssbhash.training import checkpoint, distributed
from ssbhash.training.beliefs import Beliefs
from ssbhash.training.optimizer import Optimizer, with_prefix, without_prefix
from ssbhash.training.torch_threads import as_many_as_pay

History = list[dict[str, float]]
# Items of a step: a batch, a neighbour of each item (or none), and labelled items that join.
StepIds = tuple[Ids, Ids, Ids]
Callback = Callable[[dict[str, float]], object]


@dataclass(frozen=True)
class Data:
    """Training items.

    Parameters
    ----------
    x, target
        Rows of features, and what the decoder reconstructs.
    labels
        Labels of the same items; None for a method without labels.
    beliefs
        Class probabilities and neighbours of the same items: the probabilities take the place
        of labels, and one neighbour of each item joins its batch.
    """

    x: RowSource
    target: RowSource
    labels: ClassLabels | None = None
    beliefs: Beliefs | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sparse(self) -> bool:
        """Whether batches of features are sparse."""
        return self.x.sparse

    @property
    def window_starts(self) -> Ids | None:
        """First item of each window to shuffle within; None if all rows are in memory."""
        return self.x.window_starts()

    def known(self, ids: Ids) -> Ids:
        """Select the items of `ids` whose label is known."""
        if self.labels is None:
            return ids[:0]
        return ids[is_labelled(self.labels.numbers[ids])]

    def batch(self, ids: Ids, device: torch.device) -> TrainingBatch:
        """Cut the batch of the items `ids`."""
        x = _moved(self.x.take(ids), device)
        target = x if self.target is self.x else _moved(self.target.take(ids), device)
        if self.labels is None:
            return TrainingBatch(x, target)
        beliefs = self.beliefs
        labels = self.labels.one_hot(ids) if beliefs is None else beliefs.probabilities[ids]
        known = is_labelled(self.labels.numbers[ids])
        given, is_known = (moved(torch.from_numpy(array), device) for array in (labels, known))
        return TrainingBatch(x, target, given, is_known)

    def neighbour(self, ids: Ids, rng: np.random.Generator) -> Ids:
        """Draw a neighbour of each item; none without beliefs."""
        if self.beliefs is None:
            return ids[:0]
        neighbours = self.beliefs.neighbours
        return neighbours[ids, rng.integers(0, neighbours.shape[1], len(ids))]


@dataclass(frozen=True)
class Options:
    """How to train; see the estimators for their meaning."""

    n_epochs: int = 30
    batch_size: int = 100
    n_labelled: int = 0
    learning_rate: float = 1e-3
    validation_fraction: float = 0.0
    patience: int | None = None
    monitor: str = "val_loss"
    precision: str = "float32"
    device: str = "cpu"
    seed: int = 0
    verbose: bool = False
    checkpoint: Path | None = None
    fingerprint: str = ""
    callbacks: tuple[Callback, ...] = ()


@dataclass
class Outcome:
    """What a training produces beside the network's weights."""

    history: History = field(default_factory=list)
    interrupted: bool = False
    best_epoch: int | None = None


class Training:
    """One training of one network; `run` may be called once.

    Parameters
    ----------
    network
        Updated in place; left in evaluation mode.
    data, options
        What to train on, and how.
    """

    def __init__(self, network: Autoencoder, data: Data, options: Options) -> None:
        self.network, self.data, self.options = network, data, options
        self.device = torch.device(options.device)
        self.alone = distributed.world_size() == 1
        network.to(self.device)
        network.begin()
        self.optimizer = Optimizer(network, options.learning_rate, data.sparse)
        self.train_ids, self.validation_ids = split(
            len(data), options.validation_fraction, options.seed
        )
        self.outcome = Outcome()
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def run(self) -> Outcome:
        """Train. On Ctrl-C, go back to the last finished epoch and return.

        Raises
        ------
        KeyboardInterrupt
            If interrupted before the first epoch has finished.
        RuntimeError
            If the loss is no longer finite.
        """
        options, outcome = self.options, self.outcome
        n_batches = -(-len(self.train_ids) // options.batch_size)
        bar = tqdm(
            total=options.n_epochs * n_batches,
            unit="batch",
            disable=None if options.verbose and distributed.rank() == 0 else True,
        )
        finished: tuple[int, dict[str, Tensor]] | None = None
        spare: dict[str, Tensor] = {}
        try:
            # Of the second layer's product.
            n_operations = 2 * options.batch_size * self.network.shape.n_hidden_units**2
            with bar, as_many_as_pay(n_operations):
                if self._resume():
                    finished = len(outcome.history), self._weights()
                    bar.update(len(outcome.history) * n_batches)
                while len(outcome.history) < options.n_epochs and not self._stalled():
                    row = self._epoch(len(outcome.history) + 1, bar)
                    weights, last = self._weights(spare), finished
                    finished = len(outcome.history), weights
                    spare = last[1] if last else {}
                    self._write_checkpoint()
                    for callback in options.callbacks if distributed.rank() == 0 else ():
                        callback(dict(row))
                    bar.set_postfix(epoch=len(outcome.history), loss=f"{row['loss']:.3f}")
        except KeyboardInterrupt:
            if finished is None:
                raise
            self.network.load_state_dict(finished[1])
            # Ctrl-C may come between the end of an epoch and the copy of its weights.
            del outcome.history[finished[0] :]
            outcome.interrupted = True
        if self.best is not None and options.patience is not None:
            self.network.load_state_dict(self.best[1])
        self.network.finish()
        self.network.eval()
        self.network.zero_grad()
        return outcome

    def _resume(self) -> bool:
        folder = self.options.checkpoint
        found = None if folder is None else checkpoint.read(folder)
        if found is None:
            return False
        about, tensors = found
        if about["fingerprint"] != self.options.fingerprint:
            raise ValueError(
                f"the checkpoint in {folder} is of another training (parameters, data or labels "
                "differ): remove it, or choose another folder"
            )
        if len(about["history"]) > self.options.n_epochs:
            raise ValueError(
                f"the checkpoint in {folder} has {len(about['history'])} epochs, more than "
                f"n_epochs={self.options.n_epochs}"
            )
        self.network.load_state_dict(without_prefix("network.", tensors))
        self.optimizer.load_state_dict(without_prefix("optimizer.", tensors))
        self.outcome.history.extend(about["history"])
        if about["best_value"] is not None:
            self.outcome.best_epoch = about["best_epoch"]
            self.best = about["best_value"], without_prefix("best.", tensors)
        return True

    def _write_checkpoint(self) -> None:
        folder = self.options.checkpoint
        if folder is None:
            return
        tensors = with_prefix("network.", self.network.state_dict())
        tensors |= with_prefix("optimizer.", self.optimizer.state_dict())
        tensors |= with_prefix("best.", self.best[1] if self.best else {})
        about = {
            "fingerprint": self.options.fingerprint,
            "history": self.outcome.history,
            "best_epoch": self.outcome.best_epoch,
            "best_value": self.best[0] if self.best else None,
        }
        if distributed.rank() == 0:
            checkpoint.write(folder, about, tensors)
        distributed.wait()

    def _generator(self, epoch: int) -> torch.Generator:
        entropy = (self.options.seed, epoch, 1 + distributed.rank())
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0]) >> 1)

    def _batches(self, ids: Ids) -> Iterator[Ids]:
        for start in range(0, len(ids), self.options.batch_size):
            yield ids[start : start + self.options.batch_size]

    def _joining(self, known: Ids, rng: np.random.Generator) -> Ids:
        """Draw labelled items to join a batch, without replacement if there are enough."""
        n_labelled = self.options.n_labelled if len(known) else 0
        if not n_labelled:
            return known[:0]
        return rng.choice(known, n_labelled, replace=n_labelled > len(known))

    def _terms(self, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        if self.options.precision == "bfloat16":
            # Without the cache, which would keep the weights of the first step: it is cleared only
            # at the end of the outermost autocast, that of own_torch_state.
            with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False):
                return self.network.terms(batch, generator)
        return self.network.terms(batch, generator)

    def _epoch(self, epoch: int, bar: Any) -> dict[str, float]:
        started = time.perf_counter()
        rng = np.random.default_rng((self.options.seed, epoch))
        shuffled = shuffle(self.train_ids, rng, self.data.window_starts)
        known = self.data.known(self.train_ids)
        generator = self._generator(epoch)
        self.network.train()
        terms: dict[str, Tensor] = {}
        sums = torch.zeros((), device=self.device)
        for own in self._batches(shuffled):
            ids = own, self.data.neighbour(own, rng), self._joining(known, rng)
            weight = 1.0 if self.alone else distributed.weight(own)
            try:
                terms = self._step(ids, generator, weight)
            except NotFiniteError as error:
                raise _diverged(epoch, "nan") from error
            share = weight * len(own) / len(shuffled)
            sums = sums + share * torch.stack([value.detach() for value in terms.values()])
            bar.update()
        self.optimizer.flush()
        distributed.add_up(sums)
        distributed.average(self.network.statistics())
        row = {"epoch": float(epoch), **dict(zip(terms, sums.tolist(), strict=True))}
        if not np.isfinite(row["loss"]):
            raise _diverged(epoch, row["loss"])
        row |= self._validate()
        row["seconds"] = time.perf_counter() - started
        self.outcome.history.append(row)
        self._remember_best(row)
        return row

    def _batch(self, ids: StepIds) -> TrainingBatch:
        own, neighbours, _ = ids
        batch = self.data.batch(np.concatenate(ids), self.device)
        return replace(batch, n_pairs=len(own)) if len(neighbours) else batch

    def _step(self, ids: StepIds, generator: torch.Generator, weight: float) -> dict[str, Tensor]:
        """Take a step along the gradient of `weight` times the loss; returns the terms."""
        own, neighbours, joining = ids
        share = distributed.share
        batch = self._batch(ids if self.alone else (share(own), share(neighbours), share(joining)))
        touched = batch.x.by_column.columns if isinstance(batch.x, SparseBatch) else None
        if not self.alone:
            batch = replace(batch, n_in_batch=len(own) + len(joining))
            whole = _moved(self.data.x.take(np.concatenate(ids)), self.device)
            touched = whole.by_column.columns if isinstance(whole, SparseBatch) else None
        self.optimizer.catch_up(touched)
        terms = self._terms(batch, generator)
        self.optimizer.step(terms["loss"] * weight, touched)
        return terms

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Compute the terms on the held-out items, always with the same noise, and the accuracy."""
        if not len(self.validation_ids):
            return {}
        self.network.eval()
        generator = self._generator(0)
        sums: dict[str, float] = {}
        n_right, n_known = 0.0, 0
        for ids in self._batches(self.validation_ids):
            neighbours = self.data.neighbour(ids, np.random.default_rng(self.options.seed))
            batch = self._batch((ids, neighbours, ids[:0]))
            for name, value in self._terms(batch, generator).items():
                share = len(ids) / len(self.validation_ids)
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + share * float(value)
            if batch.labels is not None and batch.known is not None:
                right, known = self._right(batch, len(ids))
                n_right, n_known = n_right + right, n_known + known
        if n_known:
            sums["val_accuracy"] = n_right / n_known
        return sums

    def _right(self, batch: TrainingBatch, n: int) -> tuple[float, int]:
        """Count labels predicted right among the first n items, and known ones."""
        assert batch.labels is not None
        assert batch.known is not None
        scores, labels = self.network.class_scores(batch.x)[:n], batch.labels[:n]
        known = batch.known[:n]
        if self.network.shape.multilabel:
            right = ((scores > 0) == (labels > 0.5))[known].float().mean(1).sum()
        else:
            right = (scores.argmax(1) == labels.argmax(1))[known].sum()
        return float(right), int(known.sum())

    def _remember_best(self, row: dict[str, float]) -> None:
        if not len(self.validation_ids):
            return
        monitor = self.options.monitor
        if monitor not in row:
            raise ValueError(
                f"monitor={monitor!r} is not measured; it needs labelled validation items"
            )
        value = row[monitor] if monitor == "val_loss" else -row[monitor]
        if self.best is None or value < self.best[0]:
            self.best = (value, self._weights())
            self.outcome.best_epoch = len(self.outcome.history)

    def _stalled(self) -> bool:
        patience, best = self.options.patience, self.outcome.best_epoch
        if patience is None or best is None:
            return False
        return len(self.outcome.history) - best >= patience

    def _weights(self, into: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copy the weights, into `into` if it fits, because new memory costs page faults."""
        state = self.network.state_dict()
        if into is None or into.keys() != state.keys():
            return {name: tensor.clone() for name, tensor in state.items()}
        for name, tensor in state.items():
            into[name].copy_(tensor)
        return into


def split(n_items: int, validation_fraction: float, seed: int) -> tuple[Ids, Ids]:
    """Choose the items to train on, and those held out.

    Raises
    ------
    ValueError
        If some are to be held out, and one of the two would be empty.
    """
    ids = np.random.default_rng((seed, 0)).permutation(n_items)
    n_validation = round(validation_fraction * n_items)
    if validation_fraction and not 0 < n_validation < n_items:
        raise ValueError(
            f"validation_fraction={validation_fraction} of {n_items} items "
            "leaves no item for validation or for training"
        )
    return np.sort(ids[n_validation:]), np.sort(ids[:n_validation])


def shuffle(ids: Ids, rng: np.random.Generator, window_starts: Ids | None) -> Ids:
    """Shuffle items; items on disk by windows, so that each window is read once.

    The windows come in random order, and items are shuffled within a window.
    """
    if window_starts is None:
        return rng.permutation(ids)
    windows = np.split(ids, np.searchsorted(ids, window_starts[1:]))
    order = rng.permutation(len(windows))
    return np.concatenate([rng.permutation(windows[number]) for number in order])


def _moved(batch: Batch, device: torch.device) -> Batch:
    return batch.to(device) if isinstance(batch, SparseBatch) else moved(batch, device)


def _diverged(epoch: int, loss: object) -> RuntimeError:
    return RuntimeError(f"the loss is {loss} in epoch {epoch}: lower learning_rate, alpha or gamma")
