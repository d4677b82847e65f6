"""scikit-learn estimators: items and a few labels in, packed codes out.

Importing this module needs the `train` extra (torch, scikit-learn, scipy, tqdm).
"""

from __future__ import annotations

import logging
import math
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch

from ssbhash.inputs import (
    ClassLabels,
    DenseRows,
    Raw,
    RowSource,
    fit_lsa,
    in_memory,
    one_scale_and_each,
)
from ssbhash.models.base import ClassifyingHasher, Hasher, probabilities
from ssbhash.models.fitted import Model
from ssbhash.models.projections import class_and_item_bits
from ssbhash.nn import (
    Autoencoder,
    BernoulliVAENetwork,
    ClassAndItemNetwork,
    PHSGSNetwork,
    Shape,
    SSBVAENetwork,
    VDSHNetwork,
    VDSHSNetwork,
    Weights,
)
from ssbhash.training import Data, Options, believe, better_scaled, log_loss, split

logger = logging.getLogger(__name__)

# Training items that the projections of codes are found on.
PROJECTED_ITEMS = 1 << 14
# Share of the class probabilities that comes from logistic regressions where these are as good as
# all classifiers together. 2/3 lost up to 0.008 P@100 where a half loses 0.002.
REGRESSION_SHARE = 0.5


@dataclass(eq=False, repr=False)
class SSBVAE(ClassifyingHasher):
    """Self-supervised Bernoulli autoencoder (Nanculef et al., arXiv 2007.08799).

    Predicted class probabilities take the place of hidden labels, so that unlabelled items
    teach too. With the default preset a code tells the class, and the items of a class apart.

    Parameters
    ----------
    preset
        "default": class and item in one code, without weights to tune; see
        docs/methods.md. Sparse features are first projected onto their latent semantic
        subspace (LSA). "paper": reconstruction + beta KL + alpha (gamma point + pair), as
        published. A parameter of the other preset raises ValueError in `fit`. So does a
        `target` with "default", which reconstructs nothing.
    n_epochs
        By default 30 with preset "paper". Else 25, if these make 500 to 1,250 steps. Few items
        take more epochs to make 500, at most 125. Many take fewer to make 1,250, at least 10.
    batch_size
        By default 100 with preset "paper", else 200.
    learning_rate
        Of Adam; by default 0.001 with preset "paper", else 0.002.
    class_scale
        Preset "default" only: scale of the class probabilities in the code, beside an
        embedding of unit length. Divided by the square root of the mean number of labels of
        an item, if that is above 1, and smaller for 9 to 31 bits (docs/methods.md). It counts
        as 0 if the labels predict held-out labels no better than class frequencies do.
    contrast_weight
        Preset "default" only: weight of telling an item's neighbour from other items.
    dropout
        Preset "default" only: share of inputs and hidden units dropped.
    n_lsa_components
        Preset "default" only: dimensions that sparse features are projected onto. By default 8
        times the square root of the number of items, at most 400.
    n_labelled
        Preset "default" only: labelled items that join each batch.
    alpha
        Preset "paper" only: weight of the supervised terms, by default 1e-3. The pair term
        is a sum over the pairs of a batch, so a larger batch wants a smaller alpha.
    gamma
        Preset "paper" only: weight of the classifier's cross-entropy among the supervised
        terms, by default 1e3.
    beta
        Preset "paper" only: weight of the Kullback-Leibler term.
    temperature
        Preset "paper" only: temperature of the binary Concrete relaxation.
    reconstruction
        Preset "paper" only: see `Hasher`.
    n_bits, ...
        See `Hasher`.

    Attributes
    ----------
    report_
        Preset "default", after `fit`: the classifiers that were tried, their log losses on
        held-out labels, which were chosen, the same for the scale of the features, the scale
        of the class probabilities, the share of them that comes from logistic regressions
        ("regression_share"), and the network's log loss on labels that it has seen.

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
    network: ClassVar[type[Autoencoder]] = ClassAndItemNetwork
    only: ClassVar[dict[str, tuple[str, ...]]] = {
        "default": (
            "class_scale",
            "contrast_weight",
            "dropout",
            "n_lsa_components",
            "n_labelled",
        ),
        "paper": ("alpha", "beta", "gamma", "temperature", "reconstruction"),
    }

    _: KW_ONLY
    n_epochs: int | None = None  # type: ignore[assignment]
    preset: str = "default"
    batch_size: int | None = None  # type: ignore[assignment]
    learning_rate: float | None = None  # type: ignore[assignment]
    class_scale: float = 1.0
    contrast_weight: float = 1.0
    dropout: float = 0.3
    n_lsa_components: int | None = None
    n_labelled: int = 32
    alpha: float | None = None
    gamma: float | None = None
    temperature: float = 2 / 3

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

    @property
    def reconstructs(self) -> bool:
        """Whether a decoder reconstructs a target: with preset "paper"."""
        return self.preset == "paper"

    def _checked_target(self, target: Any, n_items: int) -> Any:
        if not self.reconstructs:
            raise ValueError(
                f"preset={self.preset!r} reconstructs nothing, so that target would have no "
                "effect; preset='paper' takes one"
            )
        return super()._checked_target(target, n_items)

    def _finish(self, model: Model, data: Data) -> None:
        if self.preset == "default":
            self._fall_back(model, data)
        super()._finish(model, data)
        if self.preset == "default":
            self._find_bits(model, data.x)

    def _fall_back(self, model: Model, data: Data) -> None:
        """Let regressions give class probabilities where the network is hardly better."""
        network, labels, beliefs = model.network, data.labels, data.beliefs
        assert isinstance(network, ClassAndItemNetwork)
        assert labels is not None
        assert beliefs is not None
        regression, seen = beliefs.regression, self._seen(labels)
        known = seen.known
        known = known[:: -(-len(known) // PROJECTED_ITEMS)]
        scores = model.encode(network.class_scores, data.x, network.shape.n_classes, known)
        loss = log_loss(probabilities(scores, seen.multilabel), seen, known)
        share = 0.0
        if regression.log_loss is not None and loss > regression.log_loss:
            share = 1.0
            logger.warning(
                "the network predicts labels that it has seen worse (log loss %.3f) than logistic "
                "regressions predict held-out ones (%.3f): class probabilities come from these",
                loss,
                regression.log_loss,
            )
        elif regression.suffices:
            share = REGRESSION_SHARE
            logger.info(
                "%s: a share of %g of the class probabilities comes from logistic regressions",
                "too few labels to hold some out"
                if regression.log_loss is None
                else "label spreading predicts held-out labels no better than logistic regressions",
                share,
            )
        network.regression_weight.copy_(regression.weight)
        network.regression_bias.copy_(regression.bias)
        network.regression_share.fill_(share)
        self.report_ |= {"log_loss_of_network": loss, "regression_share": share}

    def _find_bits(self, model: Model, rows: RowSource) -> None:
        """Find the projection whose signs are the bits."""
        network = model.network
        assert isinstance(network, ClassAndItemNetwork)
        n = min(len(rows), PROJECTED_ITEMS)
        some = np.arange(n, dtype=np.int64) * len(rows) // n
        both = model.encode(network.both, rows, len(network.mean), some)
        shape, class_scale = network.shape, self.report_["class_scale"]
        mean, projection = class_and_item_bits(
            both, shape.n_classes, shape.n_bits, class_scale, int(self.seed)
        )
        network.mean.copy_(torch.from_numpy(mean))
        network.projection.copy_(torch.from_numpy(projection))

    def _network(self) -> type[Autoencoder]:
        return SSBVAENetwork if self.preset == "paper" else ClassAndItemNetwork

    def _weights(self) -> Weights:
        return replace(
            super()._weights(),
            alpha=1e-3 if self.alpha is None else float(self.alpha),
            gamma=1e3 if self.gamma is None else float(self.gamma),
            contrast=float(self.contrast_weight),
            dropout=float(self.dropout),
        )

    def _inputs(self, rows: Raw, reconstruction: str, labels: ClassLabels | None) -> RowSource:
        if self.preset == "paper":
            return super()._inputs(rows, reconstruction, labels)
        if isinstance(rows, DenseRows):
            assert labels is not None
            scaled = one_scale_and_each(rows)
            chosen, self.report_ = better_scaled(*scaled, self._seen(labels), int(self.seed))
            return chosen
        self.report_ = {}
        return fit_lsa(rows, self.n_lsa_components, int(self.seed), bool(self.verbose))

    def _prepared(self, data: Data, shape: Shape) -> tuple[Data, Shape]:
        if self.preset == "paper":
            return data, shape
        assert data.labels is not None
        rows = in_memory(data.x)
        seen = self._seen(data.labels)
        beliefs = believe(rows, seen, int(self.seed), bool(self.verbose))
        known = data.labels.known
        beliefs.probabilities[known] = data.labels.one_hot(known)
        # Probabilities of an item with several labels are longer than its embedding.
        class_scale = float(self.class_scale) / math.sqrt(max(1.0, seen.labels_per_item))
        if not beliefs.informative:
            class_scale = 0.0
            logger.warning(
                "the labels do not predict held-out labels better than class frequencies do "
                "(log loss %.3f, %.3f): codes keep the item alone",
                beliefs.report["log_loss"],
                beliefs.report["log_loss_of_frequencies"],
            )
        self.report_ |= beliefs.report | {"class_scale": class_scale}
        data = replace(data, x=rows, target=rows, beliefs=beliefs)
        return data, replace(shape, n_targets=0)

    def _seen(self, labels: ClassLabels) -> ClassLabels:
        """Hide the labels of the validation items."""
        n_items, share = len(labels.numbers), float(self.validation_fraction)
        return labels.without(split(n_items, share, int(self.seed))[1])

    def _options(self, device: str, data: Data) -> Options:
        options = super()._options(device, data)
        if self.preset == "paper":
            return options
        return replace(options, n_labelled=int(self.n_labelled))

    def _batch_size(self) -> int:
        if self.batch_size is not None:
            return int(self.batch_size)
        return 100 if self.preset == "paper" else 200

    def _learning_rate(self) -> float:
        if self.learning_rate is not None:
            return float(self.learning_rate)
        return 1e-3 if self.preset == "paper" else 2e-3

    def _epochs(self, n_items: int) -> int:
        if self.n_epochs is not None:
            return int(self.n_epochs)
        if self.preset == "paper":
            return 30
        n_steps = -(-n_items // self._batch_size())
        return max(10, min(25, -(-1250 // n_steps)), min(125, -(-500 // n_steps)))


@dataclass(eq=False, repr=False)
class PHSGS(ClassifyingHasher):
    """Pairwise supervised hashing with Gumbel-Softmax (Dadaneh et al., UAI 2020).

    The loss is reconstruction + beta KL + alpha (gamma point + pair). The pair term treats
    every pair with a hidden label as dissimilar.

    Parameters
    ----------
    alpha
        Weight of the supervised terms.
    gamma
        Weight of the classifier's cross-entropy among the supervised terms.
    temperature
        Temperature of the binary Concrete relaxation.
    n_bits, beta, ...
        See `Hasher`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssbhash import PHSGS
    >>> X, y = load_digits(return_X_y=True)
    >>> y[200:] = -1  # unlabelled
    >>> PHSGS(n_bits=16, n_epochs=2, n_hidden_units=64).fit(X, y).predict(X).shape
    (1797,)
    """

    method: ClassVar[str] = "phs-gs"
    network: ClassVar[type[Autoencoder]] = PHSGSNetwork

    _: KW_ONLY
    alpha: float = 1e-3
    gamma: float = 1e3
    temperature: float = 2 / 3


class _MedianRule:
    """The Gaussian methods' choice of thresholds."""

    threshold: str

    def _finish(self, model: Model, data: Data) -> None:
        super()._finish(model, data)  # type: ignore[misc]
        if self.threshold == "median":
            network = model.network
            means = model.encode(network.code_logits, data.x, network.shape.n_bits)
            assert isinstance(network, VDSHNetwork)
            network.threshold.copy_(torch.from_numpy(np.median(means, axis=0)))


@dataclass(eq=False, repr=False)
class VDSHS(_MedianRule, ClassifyingHasher):
    """VDSH-S: VDSH with a classifier on the latent vector (Chaidaroon and Fang, SIGIR 2017).

    The loss is reconstruction + beta KL + alpha point.

    Parameters
    ----------
    alpha
        Weight of the classifier's cross-entropy.
    threshold
        As in `VDSH`.
    n_bits, beta, ...
        See `Hasher`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssbhash import VDSHS
    >>> X, y = load_digits(return_X_y=True)
    >>> y[200:] = -1  # unlabelled
    >>> VDSHS(n_bits=16, n_epochs=2, n_hidden_units=64).fit(X, y).predict(X).shape
    (1797,)
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
        Temperature of the binary Concrete relaxation.
    n_bits, beta, ...
        See `Hasher`.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash import BernoulliVAE
    >>> X = np.random.default_rng(0).poisson(1.0, (100, 20))
    >>> BernoulliVAE(16, n_epochs=2, n_hidden_units=16).fit(X).transform(X).shape
    (100, 2)
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
        "zero": bit j is [mean_j > 0]. "median": bit j is [mean_j > median of mean_j over the
        training items], so that each bit is balanced.
    n_bits, beta, ...
        See `Hasher`.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash import VDSH
    >>> X = np.random.default_rng(0).poisson(1.0, (100, 20))
    >>> VDSH(16, n_epochs=2, n_hidden_units=16).fit(X).transform(X).shape
    (100, 2)
    """

    method: ClassVar[str] = "vdsh"
    network: ClassVar[type[Autoencoder]] = VDSHNetwork

    _: KW_ONLY
    threshold: str = "zero"
