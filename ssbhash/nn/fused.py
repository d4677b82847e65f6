"""A training step of the paper's networks written out: terms and gradients without autograd.

Batches are small: of a step of 13 ms autograd, the dispatch of some 200 operators and the
memory they allocate took 5. Here a step is some twenty calls into memory that stays.
Tests compare with autograd, which does whatever `FusedStep.fits` refuses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import ssbhash
from ssbhash.nn.adam import FlatAdam
from ssbhash.nn.bernoulli_vae import Autoencoder, BernoulliVAENetwork, Items
from ssbhash.nn.losses import LOG_FLOOR
from ssbhash.nn.native import native_for
from ssbhash.nn.networks import BatchNorm, Linear
from ssbhash.nn.relaxations import as_seed
from ssbhash.nn.rows import SparseBatch

Floats = npt.NDArray[np.float32]


class _Matrices:
    """Memory for batches of n items, as tensors and as the arrays that share it."""

    def __init__(self, n_items: int, n_hidden_units: int, n_bits: int, n_heads: int) -> None:
        names = ("product", "rectified", "hidden", "last_rectified", "last_hidden", "gradient")
        widths = dict.fromkeys(names, n_hidden_units)
        widths |= {"code_gradient": n_bits, "heads": n_heads, "heads_gradient": n_heads}
        self.tensors = {name: torch.empty(n_items, width) for name, width in widths.items()}
        self.arrays: dict[str, Floats] = {name: x.numpy() for name, x in self.tensors.items()}


class _Norm:
    """A normalised layer's arrays, and those that its gradients go to."""

    def __init__(self, norm: BatchNorm, layer: Linear, gradients: dict[Tensor, Tensor]) -> None:
        self.norm = norm
        learned = layer.bias, norm.weight, norm.bias
        running: Any = norm.running_mean, norm.running_var
        self.bias, self.scale, self.shift = (x.detach().numpy() for x in learned)
        self.gradients = [gradients[x].numpy() for x in learned]
        self.running = [x.numpy() for x in running]
        self.moments = np.empty((2, len(self.bias)), np.float32)

    def forward(self, native: Any, product: Floats, rectified: Floats, out: Floats) -> None:
        """Write the normalised max(product + bias, 0) to `out`."""
        momentum = self.norm.count()
        written = rectified, out, self.moments, *self.running
        arrays = product, self.bias, self.scale, self.shift
        native.relu_norm(*arrays, self.norm.eps, momentum, *written, torch.get_num_threads())

    def backward(self, native: Any, gradient: Floats, rectified: Floats, product: Floats) -> None:
        """Gradient of the product from that of the output, and those of the parameters."""
        arrays = gradient, rectified, self.moments, self.scale
        threads = torch.get_num_threads()
        native.relu_norm_backward(*arrays, product, *self.gradients, threads)


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
        encoder, decoder = network.encoder, network.decoder
        self._first_norm = _Norm(encoder.first_norm, encoder.first, gradients)
        self._second_norm = _Norm(encoder.second_norm, encoder.second, gradients)
        self._first, self._second = (x.weight.detach() for x in (encoder.first, encoder.second))
        self._second_gradient = gradients[encoder.second.weight]
        self._heads = network.heads()
        self._head_gradients = [(gradients[x.weight], gradients[x.bias]) for x in self._heads]
        parameters = decoder.weight, decoder.bias
        self._decoder = [x.detach().numpy() for x in parameters]
        self._decoder_gradients = [gradients[x].numpy() for x in parameters]
        self._softmax, self._latent = self.native.SoftmaxRegression(), self.native.LatentLoss()
        self._matrices: dict[int, _Matrices] = {}

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
        """Whether these items can be taken: sparse, and two at least."""
        sparse = isinstance(items.x, SparseBatch) and isinstance(items.target, SparseBatch)
        return sparse and len(items.x) > 1

    @torch.no_grad()
    def __call__(self, items: Items, generator: torch.Generator, factor: float) -> dict[str, float]:
        """Give the terms, and leave the gradients of `factor` times the loss."""
        assert isinstance(items.x, SparseBatch)
        assert isinstance(items.target, SparseBatch)
        memory = self._memory(len(items.x))
        weights = self.network.term_weights()
        self.encode(items.x, memory)
        logits = memory.arrays["heads"][:, : self.network.shape.n_bits]
        tau = self.network.weights.temperature
        code = ssbhash.sample_relaxed(logits, as_seed(generator), tau=tau)
        reconstruction = self.decode(code, items.target, factor * weights["reconstruction"], memory)
        factors = {name: factor * value for name, value in weights.items()}
        terms = {"reconstruction": reconstruction} | self.compare(code, items, factors, memory)
        self.propagate(items.x, memory)
        loss = sum(weights[name] * value for name, value in terms.items())
        return terms | {"loss": loss}

    def _memory(self, n_items: int) -> _Matrices:
        if n_items not in self._matrices:
            shape, n_heads = self.network.shape, sum(len(x.bias) for x in self._heads)
            self._matrices[n_items] = _Matrices(
                n_items, shape.n_hidden_units, shape.n_bits, n_heads
            )
        return self._matrices[n_items]

    def encode(self, x: SparseBatch, memory: _Matrices) -> None:
        """Both hidden layers, and by one product the logits and the class scores."""
        arrays, tensors = memory.arrays, memory.tensors
        product = arrays["product"]
        batch = x.columns.numpy(), x.values.numpy(), x.starts.numpy()
        threads = torch.get_num_threads()
        self.native.sparse_product(*batch, self._first.numpy(), product, threads)
        self._first_norm.forward(self.native, product, arrays["rectified"], arrays["hidden"])
        torch.mm(tensors["hidden"], self._second, out=tensors["product"])
        last = arrays["last_rectified"], arrays["last_hidden"]
        self._second_norm.forward(self.native, product, *last)
        self._head_weight = torch.cat([x.weight for x in self._heads], 1)
        bias = torch.cat([x.bias for x in self._heads])
        torch.addmm(bias, tensors["last_hidden"], self._head_weight, out=tensors["heads"])

    def decode(self, code: Floats, target: SparseBatch, factor: float, memory: _Matrices) -> float:
        """Reconstruct; the decoder's gradients, `factor` times, and that of the code."""
        batch = target.columns.numpy(), target.values.numpy(), target.starts.numpy()
        gradient, threads = memory.arrays["code_gradient"], torch.get_num_threads()
        loss: float = self._softmax.forward(
            code, *self._decoder, *batch, LOG_FLOOR, gradient, threads
        )
        self._softmax.backward(factor, *self._decoder_gradients, threads)
        return loss

    def compare(
        self, code: Floats, items: Items, factors: dict[str, float], memory: _Matrices
    ) -> dict[str, float]:
        """Other terms, and the gradient of the heads by all terms."""
        network, arrays = self.network, memory.arrays
        if items.labels is None or items.known is None:
            labels = np.empty((len(code), 0), np.float32)
        else:
            labels = items.labels.numpy()
        scales = {"kl": 1.0, "point": 1.0, "pair": items.pair_scale, "reconstruction": 1.0}
        in_turn = tuple(scale * factors.get(name, 0.0) for name, scale in scales.items())
        kl, point, pair = self._latent.step(
            arrays["heads"],
            code,
            arrays["code_gradient"],
            labels,
            network.pairs_by_prediction,
            network.weights.temperature,
            LOG_FLOOR,
            in_turn,
            arrays["heads_gradient"],
        )
        terms = {"kl": kl, "point": point, "pair": pair * items.pair_scale}
        return {name: value for name, value in terms.items() if name in factors}

    def propagate(self, x: SparseBatch, memory: _Matrices) -> None:
        """Gradients of the encoder from that of the heads; the first layer's goes to `x`."""
        arrays, tensors = memory.arrays, memory.tensors
        gradient, product, heads = (
            tensors["gradient"],
            tensors["product"],
            tensors["heads_gradient"],
        )
        weights, biases, first = torch.mm(tensors["last_hidden"].t(), heads), heads.sum(0), 0
        for weight, bias in self._head_gradients:
            width = len(bias)
            weight.copy_(weights.narrow(1, first, width))
            bias.copy_(biases.narrow(0, first, width))
            first += width
        torch.mm(heads, self._head_weight.t(), out=gradient)
        self._second_norm.backward(
            self.native, arrays["gradient"], arrays["last_rectified"], arrays["product"]
        )
        torch.mm(tensors["hidden"].t(), product, out=self._second_gradient)
        torch.mm(product, self._second.t(), out=gradient)
        self._first_norm.backward(
            self.native, arrays["gradient"], arrays["rectified"], arrays["product"]
        )
        assert x.touched is not None
        x.touched.gradient = product
