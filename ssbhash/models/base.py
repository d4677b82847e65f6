"""Base classes of the estimators: scikit-learn's contract, codes, predictions, files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from ssbhash.arrays import Codes, Float32Array
from ssbhash.codes import pack
from ssbhash.data import is_labelled
from ssbhash.inputs import (
    ClassLabels,
    Raw,
    RowSource,
    StandardisedRows,
    is_mostly_zero,
    read_labels,
    row_source,
    standardise,
)
from ssbhash.models import checks, storage
from ssbhash.models.classifying import PartlyLabelledClassifier, with_predictions
from ssbhash.models.fitted import Model
from ssbhash.nn import Autoencoder, EncoderFactory, Shape, Weights
from ssbhash.registry import METHODS
from ssbhash.training import Callback, Data, Options, Outcome, Training, own_torch_state


@dataclass(eq=False, repr=False)
class Hasher(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of all methods: `fit` without labels, codes, files.

    Parameters
    ----------
    n_bits
        Length of the code.
    beta
        Weight of the Kullback-Leibler term.
    n_hidden_units
        Width of the encoder's two hidden layers, and of its output.
    encoder
        A function of n_features and n_hidden_units that makes the encoder: a
        `torch.nn.Module` that maps float32 [m, n_features] to [m, n_hidden_units]. `save`
        keeps its weights and its name; `load` needs the function again (docs/training.md).
        None for the encoder of the paper.
    n_epochs, batch_size, learning_rate
        Of Adam; the defaults are the paper's.
    reconstruction
        Likelihood of the target. "multinomial": a softmax over its columns; rows are
        normalised to sum 1, and need non-negative values. "gaussian": squared error;
        features are first divided by their standard deviation, dense ones also centred.
        "auto": multinomial if the target has no negative value, else gaussian.
    validation_fraction
        Share of the training items that is held out. Their "val_loss" is recorded, and
        the "val_accuracy" of the classifier if some of them have labels.
    patience
        Stop after this many epochs without a better `monitor`, and go back to the best
        epoch. None trains all epochs. Needs `validation_fraction` > 0.
    monitor
        "val_loss" (smaller is better) or "val_accuracy" (larger is better). The latter
        needs `validation_fraction` > 0 and labels.
    precision
        "float32", or "bfloat16" for automatic mixed precision.
    device
        "auto" (CUDA where present), or a torch device such as "cpu".
    checkpoint
        Folder for the state after each epoch. `fit` goes on from a state that it finds
        there, and reaches the weights of an uninterrupted training. A state of other data,
        labels or parameters is refused; only `n_epochs` may differ.
    seed
        Of initial weights, order of items and noise. The same seed gives the same weights
        on the same machine with the same number of threads.
    verbose
        Show a progress bar, if standard error is a terminal.

    Attributes
    ----------
    history_
        One dict for each epoch: "epoch", "loss" and its terms, "seconds". If items are
        held out, also "val_loss" and "val_..." for each term.
    n_epochs_
        Number of epochs trained.
    best_epoch_
        Epoch of the best monitored value; None if none is monitored.
    interrupted_
        Whether Ctrl-C ended the training early.
    n_features_in_
        Number of features.

    Examples
    --------
    >>> from ssbhash import VDSH
    >>> VDSH(n_bits=16).set_params(beta=0.5).get_params()["beta"]
    0.5
    """

    method: ClassVar[str]  # its name in ssbhash/registry.py
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
    encoder: EncoderFactory | None = None

    def fit(
        self, X: Any, y: Any = None, target: Any = None, *, callbacks: Sequence[Callback] = ()
    ) -> Hasher:
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
            normalised to sum 1 under a multinomial reconstruction. A method that
            reconstructs nothing (`reconstructs` is False) takes none.
        callbacks
            Functions that are called after each epoch with its row of `history_`. Of several
            processes, the first calls them. `docs/training.md` has examples.

        Returns
        -------
        Hasher
            Itself, fitted. After Ctrl-C it holds the last finished epoch, and
            `interrupted_` is true. Before the end of the first epoch Ctrl-C raises
            KeyboardInterrupt.

        Raises
        ------
        ValueError
            If X, y or target are malformed (the message says how), or a parameter is
            out of range.
        TypeError
            If a parameter has the wrong type, or a callback cannot be called.
        RuntimeError
            If the weights become NaN or infinite.

        Examples
        --------
        >>> import numpy as np
        >>> from ssbhash import VDSH
        >>> X = np.random.default_rng(0).poisson(1.0, (100, 20))
        >>> losses = []
        >>> hasher = VDSH(8, n_epochs=3, n_hidden_units=16)
        >>> _ = hasher.fit(X, callbacks=[lambda row: losses.append(row["loss"])])
        >>> len(losses)
        3
        """
        return self._fit(X, target, None, callbacks)

    @property
    def reconstructs(self) -> bool:
        """Whether a decoder reconstructs a target: whether `fit` takes `target`."""
        return True

    def transform(self, X: Any) -> Codes:
        """Encode items.

        Parameters
        ----------
        X
            [n, n_features], as in `fit`.

        Returns
        -------
        uint8 [n, n_bytes]
            Packed codes: bit j is bit j % 8 of byte j // 8. A data frame if scikit-learn's
            `set_output` asks for one; all other methods return arrays.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            If X is malformed, or has other features than in `fit`.
        """
        return self._codes(X)

    def _codes(self, X: Any) -> Codes:
        return np.asarray(pack(self.logits(X) > 0))

    def logits(self, X: Any) -> Float32Array:
        """Compute the real numbers whose signs are the code.

        Parameters
        ----------
        X
            [n, n_features], as in `fit`.

        Returns
        -------
        float32 [n, n_bits]
            Bernoulli methods: the log-odds of each bit. Gaussian methods: the latent mean
            minus the threshold.
        """
        model = self._fitted()
        rows = model.rows(self._checked(X, reset=False))
        return model.encode(model.network.code_logits, rows, model.network.shape.n_bits)

    def save(self, path: str | Path) -> None:
        """Write config.json and weights.safetensors into the folder `path`.

        Nothing is pickled. The folder is made if needed. A model that is there already is
        replaced as a whole: if saving fails or is killed, the folder holds the old model or
        the new one.

        Parameters
        ----------
        path
            A folder.
        """
        self._save(path, {})

    def _save(self, path: str | Path, beside: Mapping[str, bytes]) -> None:
        """Save, with more files that belong to the model."""
        model = self._fitted()
        names = getattr(self, "feature_names_in_", None)
        config = {
            "method": self.method,
            "parameters": self._parameters,
            "feature_names": None if names is None else list(names),
            "history": self.history_,
            "interrupted": self.interrupted_,
            "best_epoch": self.best_epoch_,
        }
        model.save(Path(path), config, beside)

    def to(self, device: Any) -> Hasher:
        """Move the fitted model to a device. It encodes there from now on.

        Parameters
        ----------
        device
            As the parameter `device`, which stays as it is: it says where `fit` trains.

        Returns
        -------
        Hasher
            Itself.

        Raises
        ------
        ValueError
            If the device is not present.
        """
        self._fitted().network.to(checks.resolve_device(device))
        return self

    @classmethod
    def load(
        cls, path: str | Path, device: Any = "cpu", encoder: EncoderFactory | None = None
    ) -> Any:
        """Open a folder written by `save`.

        Parameters
        ----------
        path, device, encoder
            As in `ssbhash.load`, which opens a model of any method.

        Returns
        -------
        Hasher
            The fitted estimator.

        Raises
        ------
        FileNotFoundError, ValueError
            As in `ssbhash.load`, or if the folder holds another method.
        """
        hasher = load_with(path, device, encoder)[0]
        if not isinstance(hasher, cls):
            raise ValueError(  # noqa: TRY004  the file is wrong, not a type
                f"{path} holds a {hasher.method!r} model, which {cls.__name__} cannot open; "
                "ssbhash.load opens any method"
            )
        return hasher

    def _fit(
        self,
        X: Any,
        target: Any,
        read: Callable[[int], ClassLabels] | None,
        callbacks: Sequence[Callback],
    ) -> Hasher:
        before = dict(self.__dict__)
        try:
            with own_torch_state():
                self._train(X, target, read, callbacks)
        except BaseException:
            # A fit that fails leaves the older model as it was.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _train(
        self,
        X: Any,
        target: Any,
        read: Callable[[int], ClassLabels] | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self._check()
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks must be functions, got {type(callback).__name__}")
        device = checks.resolve_device(self.device)
        x = self._checked(X, reset=True)
        aim = x if target is None else self._checked_target(target, x.shape[0])
        labels = None if read is None else read(x.shape[0])
        # What cannot be saved is refused now, not after hours of training.
        saved_labels = None if labels is None else labels.to_json()
        storage.to_json([storage.saved_parameters(self), saved_labels])
        shape = Shape(
            n_features=x.shape[1],
            n_targets=aim.shape[1],
            n_bits=int(self.n_bits),
            n_classes=0 if labels is None else len(labels.classes),
            n_hidden_units=int(self.n_hidden_units),
            multilabel=labels is not None and labels.multilabel,
            reconstruction=checks.resolve_reconstruction(self.reconstruction, aim),
        )
        # By the share of zeros, not by the type of matrix: equal data gives an equal model.
        raw = row_source(x, is_mostly_zero(x))
        rows = self._inputs(raw, shape.reconstruction, labels)
        targets: RowSource
        if shape.reconstruction == "multinomial":
            targets = row_source(aim, is_mostly_zero(aim)).normalised()
        elif aim is x and isinstance(rows, StandardisedRows):
            targets = rows
        else:
            targets = standardise(row_source(aim, is_mostly_zero(aim)))
        data, shape = self._prepared(Data(rows, targets, labels), shape)
        network = self._build(replace(shape, n_features=rows.n_columns))
        model = Model(network, labels, getattr(rows, "statistics", {}), raw.sparse)
        options = replace(self._options(device, data), callbacks=tuple(callbacks))
        outcome = Training(model.network, data, options).run()
        checks.check_trained(model.network, x)
        self._finish(model, data)
        self._keep(model, outcome)

    def _keep(self, model: Model, outcome: Outcome) -> None:
        self._model = model
        # `set_params` may follow, for the next `fit`; this model is saved with its own.
        self._parameters = storage.saved_parameters(self)
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

    def _checked_target(self, target: Any, n_items: int) -> Any:
        return checks.check_target(target, n_items)

    def _build(self, shape: Shape) -> Autoencoder:
        generator = torch.Generator().manual_seed(int(self.seed))
        return self._network()(shape, replace(self._weights(), encoder=self.encoder), generator)

    def _check(self) -> None:
        """Check the parameters; a method extends it for its own."""
        checks.check(self)

    def _network(self) -> type[Autoencoder]:
        return self.network

    def _inputs(self, rows: Raw, reconstruction: str, labels: ClassLabels | None) -> RowSource:
        """Wrap the rows of features as the network takes them."""
        return rows if reconstruction == "multinomial" else standardise(rows)

    def _prepared(self, data: Data, shape: Shape) -> tuple[Data, Shape]:
        """Add what is measured on all training items before the network is built."""
        return data, shape

    def _weights(self) -> Weights:
        return Weights(
            alpha=float(getattr(self, "alpha", 0) or 0),
            beta=float(self.beta),
            gamma=float(getattr(self, "gamma", 0) or 0),
            temperature=float(getattr(self, "temperature", 1)),
        )

    def _finish(self, model: Model, data: Data) -> None:
        """Measure what needs the trained network and all training items."""

    def _options(self, device: str, data: Data) -> Options:
        return Options(
            n_epochs=self._epochs(len(data)),
            batch_size=self._batch_size(),
            learning_rate=self._learning_rate(),
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

    def _batch_size(self) -> int:
        return int(self.batch_size)

    def _learning_rate(self) -> float:
        return float(self.learning_rate)

    def _epochs(self, n_items: int) -> int:
        return int(self.n_epochs)

    def _fingerprint(self, data: Data) -> str:
        """Tell this training from others: parameters, sizes, labels and the first rows."""
        passing = ("n_epochs", "verbose", "checkpoint", "device")
        given = storage.saved_parameters(self).items()
        parameters = {name: value for name, value in given if name not in passing}
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
        return -(-self._model.network.shape.n_bits // 8)

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class ClassifyingHasher(PartlyLabelledClassifier, Hasher):
    """Base of the methods with labels: y in `fit`, and predictions.

    Parameters
    ----------
    n_bits, ...
        See `Hasher`.

    Attributes
    ----------
    classes_
        The classes in ascending order; multi-label: column numbers.
    transduction_
        Classes [n] of the training items: the known ones, and predictions for the others;
        multi-label: int8 indicators [n, n_classes]. Not saved with the model.
    """

    def fit(
        self, X: Any, y: Any = None, target: Any = None, *, callbacks: Sequence[Callback] = ()
    ) -> ClassifyingHasher:
        """Train on items, some of which have labels.

        Items have no weights (no `sample_weight`): repeat an item instead.

        Parameters
        ----------
        X, target, callbacks
            As in `Hasher.fit`.
        y
            Labels [n]: whole numbers, text or truth values; -1, None or NaN is unlabelled.
            Or an indicator matrix of 0 and 1 [n, n_classes]; rows of -1 are unlabelled.
            `ssbhash.data.number_labels` documents all forms. Labels of at least two classes
            must be known.

        Returns
        -------
        ClassifyingHasher
            Itself, fitted; after Ctrl-C as in `Hasher.fit`.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As in `Hasher.fit`, or if y is missing or has too few labels.
        """
        self._fit(
            X, target, lambda n_items: read_labels(y, n_items, type(self).__name__), callbacks
        )
        return self

    def _finish(self, model: Model, data: Data) -> None:
        super()._finish(model, data)
        labels, network = model.labels, model.network
        assert labels is not None
        hidden = np.flatnonzero(~is_labelled(labels.numbers))
        scores = model.encode(network.class_scores, data.x, network.shape.n_classes, hidden)
        predicted = probabilities(scores, labels.multilabel)
        self.transduction_ = with_predictions(labels, predicted)

    def predict_proba(self, X: Any) -> Float32Array:
        """Estimate class probabilities.

        Parameters
        ----------
        X
            [n, n_features], as in `fit`.

        Returns
        -------
        float32 [n, n_classes]
            In the order of `classes_`. Each row sums to 1; multi-label: each entry by itself.
        """
        model = self._fitted()
        rows = model.rows(self._checked(X, reset=False))
        network = model.network
        scores = model.encode(network.class_scores, rows, network.shape.n_classes)
        return probabilities(scores, network.shape.multilabel)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict classes.

        Parameters
        ----------
        X
            [n, n_features], as in `fit`.

        Returns
        -------
        array [n], or int64 [n, n_classes]
            The most probable of `classes_`; multi-label: indicators of probabilities above 1/2.

        Examples
        --------
        >>> import numpy as np
        >>> from ssbhash import SSBVAE
        >>> X = np.repeat(np.eye(2), 20, axis=0)
        >>> y = np.array(["ant"] * 20 + ["bee"] * 20, dtype=object)
        >>> y[1::2] = None  # unlabelled
        >>> hasher = SSBVAE(n_bits=8, n_epochs=20, n_hidden_units=64, verbose=False).fit(X, y)
        >>> hasher.predict(X[[0, 39]]).tolist(), hasher.score(X, y)
        (['ant', 'bee'], 1.0)
        """
        predicted = self.predict_proba(X)
        if self._model.network.shape.multilabel:
            return (predicted > 0.5).astype(np.int64)
        return np.asarray(self.classes_[predicted.argmax(1)])


def probabilities(scores: Float32Array, multilabel: bool) -> Float32Array:
    """Turn the scores of a classifier into class probabilities."""
    values = torch.from_numpy(scores)
    found = torch.sigmoid(values) if multilabel else torch.softmax(values, 1)
    return np.asarray(found.numpy())


@own_torch_state()
def load_with(
    path: str | Path, device: Any = "cpu", encoder: EncoderFactory | None = None
) -> tuple[Hasher, dict[str, bytes]]:
    """Open a folder: the hasher, and by name the files that were saved beside it."""
    config, tensors, beside = storage.load(Path(path))
    method = config.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(
            f"{path} holds a model of unknown method {method!r}; known are {', '.join(METHODS)}"
        )
    try:
        parameters = config["parameters"]
        name = parameters.get("encoder")
        if (name is None) != (encoder is None):
            raise ValueError(
                f"{path} was trained with the encoder {name}: give load(..., encoder={name})"
                if encoder is None
                else f"{path} has no encoder of its own: load it without encoder"
            )
        hasher: Hasher = METHODS[method](**{**parameters, "encoder": encoder})
        hasher._check()
        model = Model.restore(config, tensors, hasher._build)
        outcome = Outcome(config["history"], config["interrupted"], config["best_epoch"])
        names = config["feature_names"]
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        fault = "holds a malformed model" if encoder is None else "does not fit the encoder"
        raise ValueError(f"{path} {fault}: {error}") from error
    hasher._keep(model, outcome)
    hasher.n_features_in_ = model.n_features
    if names is not None:
        hasher.feature_names_in_ = np.array(names, dtype=object)
    hasher.to(device)
    return hasher, beside
