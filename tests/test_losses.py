"""Every loss term against the formula written out, gradients too."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import numpy as np
import scipy.sparse as sp
from torch.nn import functional as F

from ssbhash.inputs.rows import row_source
from ssbhash.nn import losses


@pytest.fixture
def generator() -> Any:
    return torch.Generator().manual_seed(1)


def rand(generator: Any, *shape: int) -> Any:
    return torch.randn(*shape, generator=generator).requires_grad_()


@pytest.fixture(autouse=True)
def with_and_without_the_extension(kernels: str) -> None:
    """Run every test with both kernels."""


def same_gradients(ours: torch.Tensor, plain: torch.Tensor, *inputs: torch.Tensor) -> None:
    """Compare what is written out with what autograd finds for the plain formula."""
    found, expected = (torch.autograd.grad(3 * loss, inputs) for loss in (ours, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("n_items", "n_targets", "n_bits"),
    [(1, 1, 1), (5, 7, 3), (16, 50, 8), (130, 1000, 19), (12, 481, 48)],
)
def test_multinomial_reconstruction(
    generator: Any, sparse: bool, n_items: int, n_targets: int, n_bits: int
) -> None:
    code, weight, bias = (
        rand(generator, *shape) for shape in ((n_items, n_bits), (n_targets, n_bits), (n_targets,))
    )
    target = torch.rand(n_items, n_targets, generator=generator)
    target = torch.where(target > 0.6, target, 0)
    target[0] = 0  # an item without any word
    matrix = sp.csr_array(target.numpy()) if sparse else target.numpy()
    batch = row_source(matrix).take(np.arange(n_items))
    ours = losses.multinomial_reconstruction(code, weight, bias, batch)
    log_p = F.log_softmax(F.linear(code, weight, bias), 1).clamp_min(math.log(1e-7))
    plain = -(target * log_p).sum(1).mean()
    torch.testing.assert_close(ours, plain)
    grads = torch.autograd.grad(3 * ours, (code, weight, bias))
    torch.testing.assert_close(grads, torch.autograd.grad(3 * plain, (code, weight, bias)))


def test_multinomial_reconstruction_survives_large_logits() -> None:
    code = torch.full((2, 1), 1e4, requires_grad=True)
    weight, bias = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    loss = losses.multinomial_reconstruction(code, weight, bias, torch.tensor([[0.0, 1], [1, 0]]))
    assert loss.item() == pytest.approx(-math.log(1e-7) / 2)
    assert not torch.autograd.grad(loss, code)[0].any()


def test_batches_can_be_differentiated_in_any_order(generator: Any) -> None:
    code, weight, bias = rand(generator, 4, 3), rand(generator, 5, 3), rand(generator, 5)
    rows = row_source(sp.eye_array(4, 5, format="csr", dtype=np.float32))
    whole, part = rows.take(np.arange(4)), rows.take(np.arange(2))

    def loss(n_items: int) -> Any:
        target = whole if n_items == 4 else part
        return losses.multinomial_reconstruction(code[:n_items], weight, bias, target)

    (expected,) = torch.autograd.grad(loss(4), weight)
    first, _ = loss(4), loss(2)  # of another size, in between
    (found,) = torch.autograd.grad(first, weight)
    assert torch.equal(found, expected)


def test_gaussian_reconstruction(generator: Any) -> None:
    code, weight, bias = rand(generator, 4, 3), rand(generator, 5, 3), rand(generator, 5)
    target = torch.randn(4, 5, generator=generator)
    ours = losses.gaussian_reconstruction(code, weight, bias, target)
    normal = torch.distributions.Normal(code @ weight.t() + bias, 1.0)
    plain = -(normal.log_prob(target) + 0.5 * math.log(2 * math.pi)).sum(1).mean()
    torch.testing.assert_close(ours, plain)


def test_bernoulli_kl(generator: Any) -> None:
    logits = rand(generator, 6, 5)
    prior = torch.distributions.Bernoulli(torch.full((6, 5), 0.5))
    posterior = torch.distributions.Bernoulli(logits=logits)
    plain = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    ours = losses.bernoulli_kl(logits)
    torch.testing.assert_close(ours, plain)
    same_gradients(ours, plain, logits)
    certain = losses.bernoulli_kl(torch.full((2, 5), 1e4, requires_grad=True))
    assert certain.item() == pytest.approx(5 * math.log(2))


def test_gaussian_kl(generator: Any) -> None:
    mean, log_variance = rand(generator, 6, 5), rand(generator, 6, 5)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    plain = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    torch.testing.assert_close(losses.gaussian_kl(mean, log_variance), plain)


@pytest.mark.parametrize("multilabel", [False, True])
def test_point_loss_is_a_mean_over_all_items_and_ignores_hidden_labels(
    generator: Any, multilabel: bool
) -> None:
    scores = rand(generator, 3, 4)
    labels = torch.eye(4)[[0, 2]]
    known = torch.tensor([True, True, False])
    if multilabel:
        plain = F.binary_cross_entropy_with_logits(scores[:2], labels, reduction="sum") / 3
    else:
        plain = F.cross_entropy(scores[:2], torch.tensor([0, 2]), reduction="sum") / 3
    padded = torch.cat([labels, torch.zeros(1, 4)])
    ours = losses.point_loss(scores, padded, known, multilabel)
    torch.testing.assert_close(ours, plain)
    same_gradients(ours, plain, scores)


def test_similarity_of_known_and_hidden_labels() -> None:
    one = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    expected = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(losses.similarity(one, multilabel=False), expected)
    several = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
    expected = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(losses.similarity(several, multilabel=True), expected)
    half = torch.full((2, 2), 0.5, requires_grad=True)
    share = losses.similarity(half, multilabel=True)
    torch.testing.assert_close(share, torch.full((2, 2), 1 - 0.75**2))
    share.sum().backward()
    assert torch.isfinite(half.grad).all()


def test_pair_loss(generator: Any) -> None:
    code = torch.rand(6, 9, generator=generator, requires_grad=True)
    similar = torch.rand(6, 6, generator=generator, requires_grad=True)
    plain = 0
    for i in range(6):
        for j in range(6):
            distance = (code[i] - code[j]).square().sum()
            far = torch.clamp(9 / 3 - distance, min=0)
            plain = plain + similar[i, j] * distance + (1 - similar[i, j]) * far
    ours = losses.pair_loss(code, similar)
    torch.testing.assert_close(ours, plain / 9)
    same_gradients(ours, plain / 9, code, similar)
