"""Gradients through binary codes: one interface, an estimator chosen by name.

Training needs the expected loss of a code b ~ Bernoulli(sigmoid(logits)), and its
gradient with respect to the logits. Two families of estimators approximate it:

- *Pathwise*: `relax` draws bits, or numbers in (0, 1), that carry a gradient. They can
  be used like any tensor.

  `concrete`
      Relaxed bits sigmoid((l + log u - log(1 - u)) / tau). Low variance, but biased,
      because the loss sees numbers that are not bits. Maddison, Mnih & Teh, *The Concrete
      Distribution*, ICLR 2017; Jang, Gu & Poole, *Categorical Reparameterization
      with Gumbel-Softmax*, ICLR 2017.
  `straight-through`
      True bits forward, the derivative of sigmoid(l) backward. Exact for a loss
      that is linear in the bits. Bengio, Leonard & Courville, arXiv 1308.3432;
      in this form by Shekhovtsov, *Bias-Variance Tradeoffs in Single-Sample
      Binary Gradient Estimators*, GCPR 2021.
  `straight-through-concrete`
      Bits rounded from `concrete` forward, its derivative backward. Jang et al. 2017.

- *Score-based*: unbiased. They need the loss as a function of the bits, which
  `expected_loss` takes, and evaluate it on several codes of each item.

  `arm`
      Antithetic pair, weighted by u - 1/2. Yin & Zhou, *ARM*, ICLR 2019.
  `disarm`
      ARM with u integrated out: less variance at the same cost. Dong, Mnih &
      Tucker, *DisARM*, NeurIPS 2020; Yin, Ho, Yan, Qian & Zhou (U2G), 2020.
  `reinforce-loo`
      Independent codes, each with the mean of the others as its baseline. Salimans
      & Knowles, arXiv 1401.1022; Kool, van Hoof & Welling, *Buy 4 REINFORCE
      Samples, Get a Baseline for Free!*, 2019.

`expected_loss` takes every name, so a training loop written with it can change its
estimator by a string.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssbhash.nn import torch_ops

Seed = int | torch.Generator | None
Loss = Callable[[Tensor], Tensor]

PATHWISE = ("concrete", "straight-through", "straight-through-concrete")
SCORE_BASED = ("arm", "disarm", "reinforce-loo")
ESTIMATORS = PATHWISE + SCORE_BASED


def relax(
    logits: Tensor,
    name: str = "concrete",
    *,
    tau: float = 2 / 3,
    seed: Seed = None,
    first_row: int = 0,
) -> Tensor:
    """Draw bits, or relaxed bits, that carry a gradient to the logits.

    Parameters
    ----------
    logits : float tensor [n, n_bits]
        Log-odds of each bit being 1.
    name : {"concrete", "straight-through", "straight-through-concrete"}
        The estimator; the module's docstring describes them.
    tau : float
        Temperature of the Concrete distribution; 2/3 is the paper's.
    seed : int, torch.Generator or None
        The draw, below 2**63. None takes it from torch's global generator.
    first_row : int
        Number of the first row. Processes that share a batch and a seed, each with
        its own first row, draw what one process would.

    Returns
    -------
    float tensor [n, n_bits]
        Like `logits`; in [0, 1] for `concrete`, else 0 or 1.

    Raises
    ------
    ValueError
        If `name` is unknown or needs the loss as a function, `seed` or `tau` is out of
        range, or a logit is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from ssbhash.nn.relaxations import relax
    >>> logits = torch.tensor([[40.0, -40.0]], requires_grad=True)
    >>> relax(logits, "straight-through", seed=0).detach()
    tensor([[1., 0.]])
    """
    if name in SCORE_BASED:
        raise ValueError(f"estimator {name!r} needs the loss as a function: use expected_loss")
    if name not in PATHWISE:
        raise ValueError(f"name must be one of {', '.join(ESTIMATORS)}; got {name!r}")
    number = as_seed(seed)
    if name == "straight-through":
        return _rows(torch_ops.sample_bits, logits, number, first_row)
    relaxed = _rows(torch_ops.sample_relaxed, logits, number, tau, first_row)
    if name == "concrete":
        return relaxed
    return (relaxed > 0.5).to(logits.dtype) + (relaxed - relaxed.detach())


def _rows(operator: Callable[..., Tensor], logits: Tensor, *arguments: float) -> Tensor:
    """Apply an operator on matrices to logits of any number of dimensions."""
    if logits.ndim == 2:
        return operator(logits, *arguments)
    return operator(logits.reshape(-1, logits.shape[-1]), *arguments).reshape(logits.shape)


def expected_loss(
    logits: Tensor,
    loss: Loss,
    name: str = "concrete",
    *,
    tau: float = 2 / 3,
    n_samples: int = 2,
    seed: Seed = None,
) -> Tensor:
    """Estimate the expectation of `loss` over codes, with the gradient of `name`.

    Parameters
    ----------
    logits : float tensor [n, n_bits]
        Log-odds of each bit being 1.
    loss : callable
        From bits [n, n_bits] to one loss for each item [n] or for the batch [].
        With score-based estimators, a loss for each item that depends on its bits
        alone has less variance. Gradients also reach what the loss uses, such as the
        weights of a decoder.
    name : str
        One of `ESTIMATORS`; the module's docstring describes them.
    tau : float
        Temperature of the Concrete distribution.
    n_samples : int
        Independent codes of each item for `reinforce-loo`, at least 2; the other
        score-based estimators use one antithetic pair.
    seed : int, torch.Generator or None
        The draw. None takes it from torch's global generator.

    Returns
    -------
    float tensor, the shape of what `loss` returns
        The mean of the loss over the codes drawn.

    Raises
    ------
    ValueError
        If `name` is unknown, tau <= 0 or n_samples < 2.

    Examples
    --------
    >>> import torch
    >>> from ssbhash.nn.relaxations import expected_loss
    >>> logits = torch.zeros(2, 3, requires_grad=True)
    >>> expected_loss(logits, lambda bits: bits.sum(1), "straight-through").sum().backward()
    >>> logits.grad
    tensor([[0.2500, 0.2500, 0.2500],
            [0.2500, 0.2500, 0.2500]])
    """
    if name not in SCORE_BASED:
        return loss(relax(logits, name, tau=tau, seed=seed))
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples}")
    with torch.no_grad():
        bits, scores = _codes_and_scores(logits, name, n_samples, seed)
    losses = torch.stack([loss(code) for code in bits])
    # d/dlogits of `expected` is sum_k loss_k score_k; its value is the mean loss.
    weights = losses.detach().reshape(*losses.shape, *[1] * (scores.ndim - losses.ndim))
    gradient = (weights * scores).sum(0)
    carrier = (gradient * (logits - logits.detach())).sum(-1)
    return losses.mean(0) + (carrier if losses.ndim > 1 else carrier.sum())


def _codes_and_scores(
    logits: Tensor, name: str, n_samples: int, seed: Seed
) -> tuple[Tensor, Tensor]:
    """Draw codes [k, n, n_bits], and scores: sum_k loss_k score_k estimates the gradient."""
    number = as_seed(seed)
    if name == "reinforce-loo":
        bits = _rows(torch_ops.sample_bits, logits.expand(n_samples, *logits.shape), number)
        scores = bits - torch.sigmoid(logits)
        # The mean over k of (loss_k minus the mean of the others) times score_k, with the
        # factors of loss_k collected: (score_k minus the mean score) / (n - 1).
        return bits, (scores - scores.mean(0)) / (n_samples - 1)
    if name == "arm":
        uniform = _rows(torch_ops.sample_relaxed, torch.zeros_like(logits), number, 1.0)
        probability = torch.sigmoid(logits)
        bits = torch.stack([uniform > 1 - probability, uniform < probability])
        score = uniform - 0.5
    else:  # disarm: ARM's weight in expectation over u given both codes
        # The draw is [u < sigmoid(l)], so that of -l is [u < 1 - sigmoid(l)].
        bits = torch.stack(
            [
                1 - _rows(torch_ops.sample_bits, -logits, number),
                _rows(torch_ops.sample_bits, logits, number),
            ]
        )
        score = 0.5 * (bits[0] - bits[1]) * torch.sigmoid(logits.abs())
    return bits.to(logits.dtype), torch.stack([score, -score])


def as_seed(seed: Seed) -> int:
    """Turn a seed, a generator (which advances) or None into one seed below 2**63."""
    if isinstance(seed, int):
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), got {seed}")
        return seed
    device = "cpu" if seed is None else seed.device
    return int(torch.randint(2**63 - 1, (), generator=seed, device=device))
