"""Bias and variance of the gradient estimators, against exact enumeration.

    python bench/estimators.py [--n-bits 8] [--draws 50000]

Measures the gradient of E[loss(b)] with respect to the logits, for losses from linear in
the bits to arbitrary, as in Shekhovtsov, *Bias-Variance Tradeoffs in Single-Sample Binary
Gradient Estimators* (GCPR 2021).

- bias: |E[g] - exact| / |exact|
- noise: the uncertainty of the bias after a finite number of draws
- spread: the root of the total variance of one draw, over |exact|
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ssbhash.nn.relaxations import ESTIMATORS, SCORE_BASED, expected_loss

Loss = Callable[[Tensor], Tensor]


def losses(n_bits: int) -> dict[str, Loss]:
    generator = torch.Generator().manual_seed(0)
    slope = torch.randn(n_bits, generator=generator)
    decoder = torch.randn(n_bits, 3 * n_bits, generator=generator) / n_bits**0.5
    target = torch.randn(3 * n_bits, generator=generator)
    hidden = torch.randn(n_bits, 32, generator=generator) * 2
    readout = torch.randn(32, generator=generator)
    return {
        "linear": lambda b: b @ slope,
        "reconstruction, quadratic": lambda b: (b @ decoder - target).square().sum(-1),
        "(b - 0.49)^2 (Tucker 2017)": lambda b: (b - 0.49).square().sum(-1),
        "network, far from linear": lambda b: torch.tanh((b - 0.5) @ hidden) @ readout,
    }


def exact_gradient(logits: Tensor, loss: Loss) -> Tensor:
    leaf = logits.double().requires_grad_()
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * len(logits))
    probability = torch.sigmoid(leaf)
    weights = (codes * probability + (1 - codes) * (1 - probability)).prod(-1)
    (weights * loss(codes)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def measure(logits: Tensor, loss: Loss, name: str, draws: int) -> tuple[float, float, float, float]:
    """Measure relative bias, its noise, relative spread, and nanoseconds for each logit."""
    exact = exact_gradient(logits, loss)
    many = logits.expand(draws, -1).clone().requires_grad_()
    start = time.perf_counter()
    expected_loss(many, loss, name, seed=0).sum().backward()
    seconds = time.perf_counter() - start
    assert many.grad is not None
    gradient = many.grad.double()
    variance = gradient.var(0).sum()
    bias = (gradient.mean(0) - exact).norm()
    scale = exact.norm()
    return (
        float(bias / scale),
        float((variance / draws).sqrt() / scale),
        float(variance.sqrt() / scale),
        1e9 * seconds / many.numel(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-bits", type=int, default=8)
    parser.add_argument("--draws", type=int, default=50_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for spread in (0.5, 2.0):
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(arguments.n_bits, generator=generator) * spread
        for title, loss in losses(arguments.n_bits).items():
            print(f"\n{title}; {arguments.n_bits} bits, logits of standard deviation {spread}")
            print(f"{'estimator':<28}{'losses':>7}{'bias':>9}{'noise':>9}{'spread':>9}{'ns':>8}")
            for name in ESTIMATORS:
                bias, noise, deviation, cost = measure(logits, loss, name, arguments.draws)
                n_losses = 2 if name in SCORE_BASED else 1
                print(
                    f"{name:<28}{n_losses:>7}{bias:>9.4f}{noise:>9.4f}{deviation:>9.3f}{cost:>8.1f}"
                )


if __name__ == "__main__":
    main()
