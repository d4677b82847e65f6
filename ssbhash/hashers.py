"""Estimators in scikit-learn's shape: items and a few labels in, packed codes out.

Importing this module needs the `train` extra (torch, scikit-learn, scipy, tqdm).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
import torch

from ssbhash.estimator import ClassifyingHasher, Hasher, load
from ssbhash.model import Model
from ssbhash.nn.bernoulli_vae import Autoencoder, BernoulliVAENetwork
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.rows import RowSource
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.nn.vdsh_s import VDSHNetwork, VDSHSNetwork

__all__ = ["METHODS", "PHSGS", "SSBVAE", "VDSH", "VDSHS", "BernoulliVAE", "load"]


@dataclass(eq=False, repr=False)
class SSBVAE(ClassifyingHasher):
    """Self-supervised Bernoulli autoencoder (Nanculef et al., arXiv 2007.08799).

    reconstruction + beta KL + alpha (gamma point + pair), where the pair term takes the
    model's own class probabilities for the labels: unlabelled pairs teach too.

    Parameters
    ----------
    alpha
        Weight of all that is supervised. The pair term is a sum over the pairs of a
        batch, so a larger batch wants a smaller alpha.
    gamma
        Weight of the classifier's cross-entropy within it.
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
    network: ClassVar[type[Autoencoder]] = SSBVAENetwork

    _: KW_ONLY
    alpha: float = 1e-3
    gamma: float = 1e3
    temperature: float = 2 / 3


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


METHODS: dict[str, type[Hasher]] = Hasher.methods
