"""Estimators in scikit-learn's shape: items and a few labels in, packed codes out.

Importing this module needs the `train` extra (torch, scikit-learn, scipy, tqdm).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch

from ssbhash.arrays import Codes
from ssbhash.codes import pack
from ssbhash.inputs import DenseRows, Raw, RowSource, fit_latent, fit_scale
from ssbhash.models.base import ClassifyingHasher, Hasher, load, probabilities
from ssbhash.models.database_codes import database_threshold
from ssbhash.models.fitted import Model
from ssbhash.nn import (
    Autoencoder,
    BernoulliVAENetwork,
    PHSGSNetwork,
    SelfTaughtNetwork,
    SSBVAENetwork,
    VDSHNetwork,
    VDSHSNetwork,
    Weights,
)
from ssbhash.training import Data, Options

__all__ = ["PHSGS", "SSBVAE", "VDSH", "VDSHS", "BernoulliVAE", "load"]

# Items whose logits tell the thresholds of database codes.
THRESHOLD_ITEMS = 1 << 16


@dataclass(eq=False, repr=False)
class SSBVAE(ClassifyingHasher):
    """Self-supervised Bernoulli autoencoder (Nanculef et al., arXiv 2007.08799).

    The model's own class probabilities take the place of hidden labels where the code is
    taught which items belong together: unlabelled pairs teach too.

    Parameters
    ----------
    preset
        "default": averaged terms that need no tuning, see `ssbhash.nn.self_taught`;
        sparse features are projected by latent semantic analysis (LSA) first. "paper":
        reconstruction + beta KL + alpha (gamma point + pair), exactly as published. A
        parameter of the other preset raises ValueError in `fit`.
    n_epochs
        None for 15, or as many as make 1,000 steps (30 with preset "paper").
    reconstruction_weight, point_weight, pair_weight, codeword_weight
        Of the terms; preset "default" only.
    dropout
        Share of inputs and hidden units dropped; preset "default" only.
    n_lsa_components
        Dimensions onto which sparse features are projected (LSA); preset "default" only.
    n_labelled
        Labelled items that join each batch; preset "default" only.
    alpha
        Preset "paper" only: weight of all that is supervised, None for 1e-3. Its pair term
        is a sum over the pairs of a batch, so a larger batch wants a smaller alpha.
    gamma
        Preset "paper" only: weight of the classifier's cross-entropy within it, None for 1e3.
    temperature
        Of the binary-Concrete relaxation.
    n_bits, beta, ...
        See `Hasher`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssbhash import SSBVAE
    >>> X, y = load_digits(return_X_y=True)
    >>> y[200:] = -1  # unlabelled
    >>> hasher = SSBVAE(n_bits=16, n_epochs=2, n_hidden_units=64).fit(X, y)
    >>> hasher.transform(X).shape
    (1797, 2)
    """

    method: ClassVar[str] = "ssb-vae"
    network: ClassVar[type[Autoencoder]] = SelfTaughtNetwork
    only: ClassVar[dict[str, tuple[str, ...]]] = {
        "default": (
            "reconstruction_weight",
            "point_weight",
            "pair_weight",
            "codeword_weight",
            "dropout",
            "n_lsa_components",
            "n_labelled",
        ),
        "paper": ("alpha", "gamma"),
    }

    _: KW_ONLY
    n_epochs: int | None = None  # type: ignore[assignment]
    preset: str = "default"
    reconstruction_weight: float = 3.0
    point_weight: float = 2.0
    pair_weight: float = 10.0
    codeword_weight: float = 1.0
    dropout: float = 0.3
    n_lsa_components: int = 400
    n_labelled: int = 32
    alpha: float | None = None
    gamma: float | None = None
    temperature: float = 2 / 3

    def database_codes(self, X: Any) -> Codes:
        """Codes of items to be searched, uint8 [n, n_bytes]; queries take those of `transform`.

        They differ in bits that an item is not certain of, so that a query meets items of a
        certain class first (`ssbhash.models`). They are the same with preset "paper", where an
        item may have several labels, and where the model expects to lose precision by it.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from ssbhash import SSBVAE, search
        >>> X, y = load_digits(return_X_y=True)
        >>> y[200:] = -1  # unlabelled
        >>> hasher = SSBVAE(n_bits=16, n_epochs=2, n_hidden_units=64).fit(X[:1700], y[:1700])
        >>> codes = hasher.database_codes(X[:1700])
        >>> search(codes, hasher.transform(X[1700:]), k=10).ids.shape
        (97, 10)
        """
        network = self._fitted().network
        if not isinstance(network, SelfTaughtNetwork):
            return super().database_codes(X)
        return np.asarray(pack(self.logits(X) > network.database_threshold.cpu().numpy()))

    def _check(self) -> None:
        super()._check()
        defaults = {field.name: field.default for field in fields(self)}
        for preset, names in self.only.items():
            for name in names if preset != self.preset else ():
                if getattr(self, name) != defaults[name]:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r} belongs to preset={preset!r}; "
                        f"preset={self.preset!r} has no {name}"
                    )

    def _finish(self, model: Model, rows: RowSource) -> None:
        super()._finish(model, rows)
        network, shape = model.network, model.network.shape
        if not isinstance(network, SelfTaughtNetwork) or shape.multilabel:
            return
        n = min(len(rows), THRESHOLD_ITEMS)
        some = np.arange(n, dtype=np.int64) * len(rows) // n
        logits = model.encode(network.code_logits, rows, shape.n_bits, some)
        scores = model.encode(network.class_scores, rows, shape.n_classes, some)
        threshold = database_threshold(logits, probabilities(scores, multilabel=False))
        network.database_threshold.copy_(torch.from_numpy(threshold))

    def _network(self) -> type[Autoencoder]:
        return SSBVAENetwork if self.preset == "paper" else SelfTaughtNetwork

    def _weights(self) -> Weights:
        return replace(
            super()._weights(),
            alpha=1e-3 if self.alpha is None else float(self.alpha),
            gamma=1e3 if self.gamma is None else float(self.gamma),
            reconstruction=float(self.reconstruction_weight),
            point=float(self.point_weight),
            pair=float(self.pair_weight),
            codeword=float(self.codeword_weight),
            dropout=float(self.dropout),
        )

    def _inputs(self, rows: Raw, reconstruction: str) -> RowSource:
        if self.preset == "paper":
            return super()._inputs(rows, reconstruction)
        if isinstance(rows, DenseRows):
            return fit_scale(rows)
        return fit_latent(rows, int(self.n_lsa_components), int(self.seed))

    def _options(self, device: str, data: Data) -> Options:
        options = super()._options(device, data)
        if self.preset == "paper":
            return options
        return replace(options, n_labelled=int(self.n_labelled))

    def _epochs(self, n_items: int) -> int:
        if self.n_epochs is not None:
            return int(self.n_epochs)
        if self.preset == "paper":
            return 30
        return max(15, -(-1000 // -(-n_items // int(self.batch_size))))


@dataclass(eq=False, repr=False)
class PHSGS(ClassifyingHasher):
    """Pairwise supervised hashing with Gumbel-Softmax (Dadaneh et al., UAI 2020).

    reconstruction + beta KL + alpha (gamma point + pair), where the pair term takes
    every pair with a hidden label for dissimilar.

    Parameters
    ----------
    alpha
        Weight of all that is supervised.
    gamma
        Weight of the classifier's cross-entropy within it.
    temperature
        Of the binary-Concrete relaxation.
    n_bits, beta, ...
        See `Hasher`.
    """

    method: ClassVar[str] = "phs-gs"
    network: ClassVar[type[Autoencoder]] = PHSGSNetwork

    _: KW_ONLY
    alpha: float = 1e-3
    gamma: float = 1e3
    temperature: float = 2 / 3


class _MedianRule:
    """The code rule of the Gaussian methods."""

    threshold: str

    def _finish(self, model: Model, rows: RowSource) -> None:
        super()._finish(model, rows)  # type: ignore[misc]
        if self.threshold == "median":
            network = model.network
            means = model.encode(network.code_logits, rows, network.shape.n_bits)
            assert isinstance(network, VDSHNetwork)
            network.threshold.copy_(torch.from_numpy(np.median(means, axis=0)))


@dataclass(eq=False, repr=False)
class VDSHS(_MedianRule, ClassifyingHasher):
    """VDSH-S: VDSH with a classifier on the latent vector (Chaidaroon and Fang, SIGIR 2017).

    reconstruction + beta KL + alpha point.

    Parameters
    ----------
    alpha
        Weight of the classifier's cross-entropy.
    threshold
        As in `VDSH`.
    n_bits, beta, ...
        See `Hasher`.
    """

    method: ClassVar[str] = "vdsh-s"
    network: ClassVar[type[Autoencoder]] = VDSHSNetwork

    _: KW_ONLY
    alpha: float = 1.0
    threshold: str = "zero"


@dataclass(eq=False, repr=False)
class BernoulliVAE(Hasher):
    """Bernoulli autoencoder: reconstruction + beta KL, without labels.

    Parameters
    ----------
    temperature
        Of the binary-Concrete relaxation.
    n_bits, beta, ...
        See `Hasher`.
    """

    method: ClassVar[str] = "bernoulli-vae"
    network: ClassVar[type[Autoencoder]] = BernoulliVAENetwork

    _: KW_ONLY
    temperature: float = 2 / 3


@dataclass(eq=False, repr=False)
class VDSH(_MedianRule, Hasher):
    """Variational deep semantic hashing (Chaidaroon and Fang, SIGIR 2017), without labels.

    Parameters
    ----------
    threshold
        "zero": bit j is [mean_j > 0]; "median": [mean_j > its median over the training
        items], which makes each bit balanced.
    n_bits, beta, ...
        See `Hasher`.
    """

    method: ClassVar[str] = "vdsh"
    network: ClassVar[type[Autoencoder]] = VDSHNetwork

    _: KW_ONLY
    threshold: str = "zero"
