"""A training step of the paper's networks written out: terms and gradients without autograd.

Batches are small: of a step of 13 ms autograd, the dispatch of some 200 operators and the
memory they allocate took 5. Here a step is some twenty calls into memory that stays.
Tests compare with autograd, which does whatever `FusedStep.fits` refuses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssbhash.arrays import NotFiniteError
from ssbhash.inputs import SparseBatch, native_for
from ssbhash.nn import LOG_FLOOR, Autoencoder, BernoulliVAENetwork, Items, as_seed
from ssbhash.training.adam import FlatAdam
from ssbhash.training.torch_threads import is_small

Floats = npt.NDArray[np.float32]


class _Memory:
    """What a batch of n items leaves from one call to the next."""

    def __init__(self, n_items: int, network: BernoulliVAENetwork) -> None:
        shape, n_heads = network.shape, sum(len(x.bias) for x in network.heads())
        self.heads, self.heads_gradient = np.empty((2, n_items, n_heads), np.float32)
        self.logits = self.heads[:, : shape.n_bits]
        self.no_labels = np.empty((n_items, 0), np.float32)
        self.code_gradient = np.empty((n_items, shape.n_bits), np.float32)
        self.product_gradient = torch.empty(n_items, shape.n_hidden_units)


class FusedStep:
    """Terms of the loss of one batch, with all gradients but the first layer's in one vector.

    Parameters
    ----------
    network
        In training mode, on the CPU, the extension built.
    optimizer
        Of all parameters but the first layer's weight; its `gradient` is written.
    """

    def __init__(self, network: BernoulliVAENetwork, optimizer: FlatAdam) -> None:
        self.network, self.native = network, native_for(network.decoder.weight)
        gradients = optimizer.gradient_views()

        def arrays(*parameters: Tensor) -> list[Floats]:
            return [x.detach().numpy() for x in parameters]

        def gradients_of(*parameters: Tensor) -> list[Floats]:
            return [gradients[x].numpy() for x in parameters]

        encoder, decoder = network.encoder, network.decoder
        self._norms = encoder.first_norm, encoder.second_norm
        layers = []
        for norm, linear in zip(self._norms, (encoder.first, encoder.second), strict=True):
            learned, running = (linear.bias, norm.weight, norm.bias), norm.running()
            layers.append((*arrays(*learned, *running), *gradients_of(*learned)))
        heads = []
        for head in network.heads():
            both = head.weight, head.bias
            heads.append((*arrays(*both), *gradients_of(*both)))
        second = encoder.second.weight
        weights = *arrays(encoder.first.weight, second), *gradients_of(second)
        self._encoder = self.native.Encoder(*weights, layers, heads, encoder.first_norm.eps)
        self._decoder = arrays(decoder.weight, decoder.bias)
        self._decoder_gradients = gradients_of(decoder.weight, decoder.bias)
        self._softmax, self._latent = self.native.SoftmaxRegression(), self.native.LatentLoss()
        self._weights, self._tau = network.term_weights(), network.weights.temperature
        self._memories: dict[int, _Memory] = {}

    @classmethod
    def of(cls, network: Autoencoder, optimizer: FlatAdam) -> FusedStep | None:
        """Give the step of a network where it is written out here, else None."""
        shape = network.shape
        if not isinstance(network, BernoulliVAENetwork) or not network.written_out:
            return None
        if shape.multilabel or shape.reconstruction != "multinomial":
            return None
        return None if native_for(network.decoder.weight) is None else cls(network, optimizer)

    def fits(self, items: Items) -> bool:
        """Whether these items can be taken: sparse, two at least, their products small."""
        sparse = isinstance(items.x, SparseBatch) and isinstance(items.target, SparseBatch)
        n_items = len(items.x)
        # Of large ones MKL's weight gradient is twice as fast, and the rest matters less.
        return sparse and n_items > 1 and is_small(n_items, self.network.shape.n_hidden_units)

    def __call__(self, items: Items, generator: torch.Generator, factor: float) -> dict[str, float]:
        """Give the terms, and leave the gradients of `factor` times the loss."""
        assert isinstance(items.x, SparseBatch)
        assert isinstance(items.target, SparseBatch)
        n_items = len(items.x)
        if n_items not in self._memories:
            self._memories[n_items] = _Memory(n_items, self.network)
        memory = self._memories[n_items]
        self.encode(items.x, memory)
        code = self.sample(memory.logits, as_seed(generator))
        terms = {"reconstruction": self.decode(code, items.target, factor, memory)}
        terms |= self.compare(code, items, factor, memory)
        self.propagate(items.x, memory)
        terms["loss"] = sum(self._weights[name] * value for name, value in terms.items())
        return terms

    def encode(self, x: SparseBatch, memory: _Memory) -> None:
        """Both hidden layers, and by one product the logits and the class scores."""
        momentum, _ = (norm.count() for norm in self._norms)
        batch = x.columns.numpy(), x.values.numpy(), x.starts.numpy()
        self._encoder.forward(*batch, momentum, memory.heads, torch.get_num_threads())

    def sample(self, logits: Floats, seed: int) -> Floats:
        """Relaxed bits of the logits: `ssbhash.sample_relaxed` without its checks."""
        code: Floats
        threads = torch.get_num_threads()
        code, bad_row = self.native.sample_relaxed(logits, self._tau, seed, 0, threads)
        if bad_row >= 0:
            raise NotFiniteError(bad_row)
        return code

    def decode(self, code: Floats, target: SparseBatch, factor: float, memory: _Memory) -> float:
        """Reconstruct; the decoder's gradients, and that of the code without the factor."""
        batch = target.columns.numpy(), target.values.numpy(), target.starts.numpy()
        gradient, threads = memory.code_gradient, torch.get_num_threads()
        loss: float = self._softmax.forward(
            code, *self._decoder, *batch, LOG_FLOOR, gradient, threads
        )
        factor *= self._weights["reconstruction"]
        self._softmax.backward(factor, *self._decoder_gradients, threads)
        return loss

    def compare(
        self, code: Floats, items: Items, factor: float, memory: _Memory
    ) -> dict[str, float]:
        """Other terms, and the gradient of the heads by all terms."""
        supervised = "point" in self._weights
        labels = items.labels.numpy() if supervised and items.labels is not None else None
        pair_scale = items.pair_scale
        factors = (
            factor * self._weights["kl"],
            factor * self._weights.get("point", 0.0),
            factor * self._weights.get("pair", 0.0) * pair_scale,
            factor * self._weights["reconstruction"],
        )
        kl, point, pair = self._latent.step(
            memory.heads,
            code,
            memory.code_gradient,
            memory.no_labels if labels is None else labels,
            self.network.pairs_by_prediction,
            self._tau,
            LOG_FLOOR,
            factors,
            memory.heads_gradient,
        )
        if labels is None:
            return {"kl": kl}
        return {"kl": kl, "point": point, "pair": pair * pair_scale}

    def propagate(self, x: SparseBatch, memory: _Memory) -> None:
        """Gradients of the encoder from that of the heads; the first layer's goes to `x`."""
        assert x.touched is not None
        gradient, threads = memory.product_gradient, torch.get_num_threads()
        self._encoder.backward(memory.heads_gradient, gradient.numpy(), threads)
        x.touched.gradient = gradient
