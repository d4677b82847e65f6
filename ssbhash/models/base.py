"""What the estimators share: scikit-learn's contract, codes, predictions, files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from ssbhash.arrays import Codes
from ssbhash.codes import pack
from ssbhash.inputs import (
    Labels,
    Raw,
    RowSource,
    StandardisedRows,
    is_mostly_zero,
    read_labels,
    row_source,
    standardise,
)
from ssbhash.models import checks, storage
from ssbhash.models.fitted import Floats, Model
from ssbhash.nn import Autoencoder, Shape, Weights
from ssbhash.training import Data, Options, Outcome, Training


@dataclass(eq=False, repr=False)
class Hasher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What all methods share: fit without labels, codes, files.

    Parameters
    ----------
    n_bits
        Length of the code.
    beta
        Weight of the Kullback-Leibler term.
    n_hidden_units
        Width of the encoder's two hidden layers.
    n_epochs, batch_size, learning_rate
        Of Adam; the defaults are the paper's.
    reconstruction
        "multinomial": the target's rows, normalised to sum 1, under a softmax; needs
        non-negative values. "gaussian": squared error; features are divided by their
        standard deviation first, and centred where dense. "auto": multinomial where the
        target has no negative value.
    validation_fraction
        Part of the training items held out to monitor "val_loss" and, where labels are
        known among them, "val_accuracy" of the classifier.
    patience
        Stop once `monitor` has not improved for so many epochs, and go back to the best
        epoch. None trains all epochs. Needs `validation_fraction` > 0.
    monitor
        "val_loss" (smaller is better) or "val_accuracy" (larger is better).
    precision
        "float32", or "bfloat16" for automatic mixed precision.
    device
        "auto" (CUDA where present), or a torch device such as "cpu".
    checkpoint
        Folder for the state after each epoch. `fit` goes on from the state that it finds
        there, to the weights of an uninterrupted training; the state of other data,
        labels or parameters (but `n_epochs`, which may grow) is refused.
    seed
        Of initial weights, order of items and noise: the same seed gives the same
        weights on the same machine with the same number of threads.
    verbose
        Show a progress bar, if standard error is a terminal.

    Attributes
    ----------
    history_
        One dict an epoch: "epoch", "loss" and its terms, "val_..." of each where items
        are held out, "seconds".
    n_epochs_, best_epoch_
        Epochs trained; the one of the best monitored value, None if none is monitored.
    interrupted_
        Whether Ctrl-C ended the training early.
    n_features_in_
        Number of features.
    """

    methods: ClassVar[dict[str, type[Hasher]]] = {}
    method: ClassVar[str]
    network: ClassVar[type[Autoencoder]]

    n_bits: int = 32
    _: KW_ONLY
    beta: float = 0.015625
    n_hidden_units: int = 500
    n_epochs: int = 30
    batch_size: int = 100
    learning_rate: float = 1e-3
    reconstruction: str = "auto"
    validation_fraction: float = 0.0
    patience: int | None = None
    monitor: str = "val_loss"
    precision: str = "float32"
    device: str = "auto"
    checkpoint: str | Path | None = None
    seed: int = 0
    verbose: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method" in cls.__dict__:
            Hasher.methods[cls.method] = cls

    def fit(self, X: Any, y: Any = None, target: Any = None) -> Hasher:
        """Train on items.

        Parameters
        ----------
        X
            [n, n_features], dense or scipy sparse; sparse stays sparse. A memory-mapped
            array (`numpy.load(..., mmap_mode="r")`) or `CsrShards` is read in batches and
            need not fit into memory.
        y
            Ignored: this method needs no labels.
        target
            [n, n_targets], what the decoder reconstructs; `X` by default. Rows are
            normalised to sum 1 under a multinomial reconstruction.

        Returns
        -------
        Hasher
            Itself, fitted. After Ctrl-C it holds the last finished epoch, and
            `interrupted_` is true; before the end of the first epoch Ctrl-C raises
            KeyboardInterrupt.

        Raises
        ------
        ValueError
            If X, y or target are malformed (the message says how), or a parameter is
            out of range.
        RuntimeError
            If the loss grows beyond all bounds.
        """
        return self._fit(X, target, None)

    def transform(self, X: Any) -> Codes:
        """Codes of items, uint8 [n, n_bytes]: bit j in bit j % 8 of byte j // 8."""
        return np.asarray(pack(self.logits(X) > 0))

    def database_codes(self, X: Any) -> Codes:
        """Codes of items to be searched, uint8 [n, n_bytes]; queries take those of `transform`.

        The two differ where a method says so: the default `SSBVAE`.
        """
        return self.transform(X)

    def logits(self, X: Any) -> Floats:
        """Real numbers, float32 [n, n_bits], whose signs are the code.

        For the Bernoulli methods the log-odds of each bit; for the Gaussian ones the
        latent mean minus the threshold.
        """
        model = self._fitted()
        rows = model.rows(self._checked(X, reset=False))
        return model.encode(model.network.code_logits, rows, model.network.shape.n_bits)

    def save(self, path: str | Path) -> None:
        """Write config.json and weights.safetensors into the folder `path`.

        Nothing is pickled. The folder is made if needed. A model that is there already is
        replaced as a whole: whatever fails or is killed, the folder holds one of the two.
        """
        self._save(path, {})

    def _save(self, path: str | Path, beside: Mapping[str, bytes]) -> None:
        """Save, with more files that belong to the model."""
        model = self._fitted()
        names = getattr(self, "feature_names_in_", None)
        config = {
            "method": self.method,
            "parameters": self.get_params(deep=False),
            "feature_names": None if names is None else list(names),
            "history": self.history_,
            "interrupted": self.interrupted_,
            "best_epoch": self.best_epoch_,
        }
        model.save(Path(path), config, beside)

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Open a folder written by `save`; the model stays on the CPU.

        Raises
        ------
        FileNotFoundError
            If the folder, or a file in it, is missing.
        ValueError
            If the files are truncated, foreign, do not belong together, or hold
            another method.
        """
        hasher = load(path)
        if not isinstance(hasher, cls):
            raise ValueError(  # noqa: TRY004  the file is wrong, not a type
                f"{path} holds a {hasher.method!r} model, which {cls.__name__} cannot open; "
                "ssbhash.models.load opens any method"
            )
        return hasher

    def _fit(self, X: Any, target: Any, read: Callable[[int], Labels] | None) -> Hasher:
        checks.check(self)
        device = checks.resolve_device(self.device)
        x = self._checked(X, reset=True)
        aim = x if target is None else checks.check_target(target, x.shape[0])
        labels = None if read is None else read(x.shape[0])
        # What cannot be saved is refused now, not after hours of training.
        storage.to_json([self.get_params(deep=False), None if labels is None else labels.to_json()])
        shape = Shape(
            n_features=x.shape[1],
            n_targets=aim.shape[1],
            n_bits=int(self.n_bits),
            n_classes=0 if labels is None else len(labels.classes),
            n_hidden_units=int(self.n_hidden_units),
            multilabel=labels is not None and labels.multilabel,
            reconstruction=checks.resolve_reconstruction(self.reconstruction, aim),
        )
        # By what the items are, not by their form: equal data gives an equal model.
        raw = row_source(x, is_mostly_zero(x))
        rows = self._inputs(raw, shape.reconstruction)
        targets: RowSource
        if shape.reconstruction == "multinomial":
            targets = row_source(aim, is_mostly_zero(aim)).normalised()
        elif aim is x and isinstance(rows, StandardisedRows):
            targets = rows
        else:
            targets = standardise(row_source(aim, is_mostly_zero(aim)))
        data = Data(rows, targets, labels)
        network = self._build(replace(shape, n_features=rows.n_columns))
        model = Model(network, labels, getattr(rows, "statistics", {}), raw.sparse)
        outcome = Training(model.network, data, self._options(device, data)).run()
        checks.check_trained(model.network, x)
        self._finish(model, data.x)
        self._keep(model, outcome)
        return self

    def _keep(self, model: Model, outcome: Outcome) -> None:
        self._model = model
        self.history_ = outcome.history
        self.n_epochs_ = len(outcome.history)
        self.best_epoch_ = outcome.best_epoch
        self.interrupted_ = outcome.interrupted
        if model.labels is not None:
            self.classes_ = model.labels.classes

    def _fitted(self) -> Model:
        check_is_fitted(self)
        return self._model

    def _checked(self, X: Any, reset: bool) -> Any:
        return checks.check_matrix(X, "X", partial(validate_data, self, reset=reset))

    def _build(self, shape: Shape) -> Autoencoder:
        generator = torch.Generator().manual_seed(int(self.seed))
        return self._network()(shape, self._weights(), generator)

    def _network(self) -> type[Autoencoder]:
        return self.network

    def _inputs(self, rows: Raw, reconstruction: str) -> RowSource:
        """Wrap the rows of features as the network takes them."""
        return rows if reconstruction == "multinomial" else standardise(rows)

    def _weights(self) -> Weights:
        return Weights(
            alpha=float(getattr(self, "alpha", 0) or 0),
            beta=float(self.beta),
            gamma=float(getattr(self, "gamma", 0) or 0),
            temperature=float(getattr(self, "temperature", 1)),
        )

    def _finish(self, model: Model, rows: RowSource) -> None:
        """Measure what needs the trained network and all training items."""

    def _options(self, device: str, data: Data) -> Options:
        return Options(
            n_epochs=self._epochs(len(data)),
            batch_size=int(self.batch_size),
            learning_rate=float(self.learning_rate),
            validation_fraction=float(self.validation_fraction),
            patience=self.patience,
            monitor=self.monitor,
            precision=self.precision,
            device=device,
            seed=int(self.seed),
            verbose=bool(self.verbose),
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
            fingerprint="" if self.checkpoint is None else self._fingerprint(data),
        )

    def _epochs(self, n_items: int) -> int:
        return int(self.n_epochs)

    def _fingerprint(self, data: Data) -> str:
        """Tell this training from others: parameters, sizes, labels and the first rows."""
        passing = ("n_epochs", "verbose", "checkpoint", "device")
        parameters = {k: v for k, v in self.get_params(deep=False).items() if k not in passing}
        sizes = (len(data), data.x.n_columns, data.target.n_columns)
        about = storage.to_json([self.method, sorted(parameters.items()), sizes])
        digest = hashlib.sha256(about.encode())
        head = data.batch(np.arange(min(len(data), 64)), torch.device("cpu"))
        for rows in (head.x, head.target):
            dense = rows if isinstance(rows, torch.Tensor) else rows.dense()
            digest.update(dense.numpy().tobytes())
        if data.labels is not None:
            digest.update(data.labels.numbers.tobytes())
        return digest.hexdigest()

    @property
    def _n_features_out(self) -> int:
        return -(-int(self.n_bits) // 8)

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class ClassifyingHasher(Hasher):
    """What the methods with labels share: y in `fit`, and predictions."""

    def fit(self, X: Any, y: Any = None, target: Any = None) -> ClassifyingHasher:
        """Train on items of which some have labels.

        Parameters
        ----------
        X, target
            As in `Hasher.fit`.
        y
            Class ids [n], -1 = unlabelled; or an indicator matrix of 0 and 1
            [n, n_classes], unlabelled rows -1. At least one label must be known, and
            class ids must be of two classes at least.

        Returns
        -------
        ClassifyingHasher
            Itself, fitted; see `Hasher.fit` for Ctrl-C and errors.
        """
        self._fit(X, target, lambda n_items: read_labels(y, n_items, type(self).__name__))
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Class probabilities, float32 [n, n_classes], in the order of `classes_`."""
        model = self._fitted()
        rows = model.rows(self._checked(X, reset=False))
        network = model.network
        scores = model.encode(network.class_scores, rows, network.shape.n_classes)
        return probabilities(scores, network.shape.multilabel)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Class ids [n]; multi-label: int64 indicator matrix of probabilities above 1/2."""
        predicted = self.predict_proba(X)
        if self._model.network.shape.multilabel:
            return (predicted > 0.5).astype(np.int64)
        return np.asarray(self.classes_[predicted.argmax(1)])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.classifier_tags = ClassifierTags()
        return tags


def probabilities(scores: Floats, multilabel: bool) -> Floats:
    """Class probabilities of the scores of a classifier."""
    values = torch.from_numpy(scores)
    found = torch.sigmoid(values) if multilabel else torch.softmax(values, 1)
    return np.asarray(found.numpy())


def load(path: str | Path) -> Hasher:
    """Open a folder written by `save`, whichever the method.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file in it, is missing.
    ValueError
        If the files are truncated, foreign or do not belong together.
    """
    return load_with(path)[0]


def load_with(path: str | Path) -> tuple[Hasher, dict[str, bytes]]:
    """Open a folder: the hasher, and the files that were saved beside it."""
    config, tensors, beside = storage.load(Path(path))
    if config.get("method") not in Hasher.methods:
        raise ValueError(f"{path} holds a model of unknown method {config.get('method')!r}")
    try:
        hasher = Hasher.methods[config["method"]](**config["parameters"])
        checks.check(hasher)
        model = Model.restore(config, tensors, hasher._build)
        outcome = Outcome(config["history"], config["interrupted"], config["best_epoch"])
        names = config["feature_names"]
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} holds a malformed model: {error}") from error
    hasher._keep(model, outcome)
    hasher.n_features_in_ = model.n_features
    if names is not None:
        hasher.feature_names_in_ = np.array(names, dtype=object)
    return hasher, beside
