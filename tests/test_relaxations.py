import pytest

torch = pytest.importorskip("torch")

from ssbhash.nn import relaxations


@pytest.mark.parametrize("name", relaxations.PATHWISE)
def test_bits_follow_the_posterior(name: str) -> None:
    logits = torch.linspace(-3, 3, 7).expand(20_000, 7)
    bits = (relaxations.relax(logits, name, seed=1) > 0.5).float()
    expected = torch.sigmoid(logits[0])
    error = (bits.mean(0) - expected) / (expected * (1 - expected) / len(logits)).sqrt()
    assert error.abs().max() < 5


@pytest.mark.parametrize("name", relaxations.PATHWISE)
def test_seeds_decide_the_draw(name: str) -> None:
    logits = torch.zeros(8, 16)
    first = relaxations.relax(logits, name, seed=3)
    assert torch.equal(first, relaxations.relax(logits, name, seed=3))
    assert not torch.equal(first, relaxations.relax(logits, name, seed=4))
    generator = torch.Generator().manual_seed(0)
    draws = [relaxations.relax(logits, name, seed=generator) for _ in range(2)]
    assert not torch.equal(*draws)
    torch.manual_seed(5)
    from_global = relaxations.relax(logits, name)
    torch.manual_seed(5)
    assert torch.equal(from_global, relaxations.relax(logits, name))


def test_unusable_arguments_are_refused() -> None:
    logits = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="expected_loss"):
        relaxations.relax(logits, "arm")
    with pytest.raises(ValueError, match="one of concrete"):
        relaxations.relax(logits, "gumbel")
    with pytest.raises(ValueError, match="tau"):
        relaxations.relax(logits, tau=0)


N_BITS = 4


def _table_loss(bits):
    """An arbitrary function of all bits together, so that nothing is linear."""
    table = torch.randn(2**N_BITS, generator=torch.Generator().manual_seed(0))
    weights = 2 ** torch.arange(N_BITS, dtype=bits.dtype)
    return table[(bits.detach() * weights).sum(-1).long()]


def _exact_gradient(logits, loss):
    """Enumerate all codes of one item."""
    logits = logits.clone().requires_grad_()
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * N_BITS)
    probability = torch.sigmoid(logits)
    weights = (codes * probability + (1 - codes) * (1 - probability)).prod(-1)
    (weights * loss(codes)).sum().backward()
    return logits.grad


@pytest.mark.parametrize("name", relaxations.SCORE_BASED)
@pytest.mark.parametrize("n_samples", [2, 5])
def test_score_based_gradients_are_unbiased(name: str, n_samples: int) -> None:
    logits = torch.tensor([-2.0, -0.3, 0.4, 3.0])
    many = logits.expand(100_000, N_BITS).clone().requires_grad_()
    relaxations.expected_loss(many, _table_loss, name, n_samples=n_samples, seed=2).sum().backward()
    standard_error = many.grad.std(0) / len(many) ** 0.5
    error = (many.grad.mean(0) - _exact_gradient(logits, _table_loss)) / standard_error
    assert error.abs().max() < 4.5


def test_straight_through_is_exact_for_a_linear_loss() -> None:
    logits = torch.tensor([-2.0, -0.3, 0.4, 3.0], requires_grad=True)
    slope = torch.tensor([1.0, -2.0, 0.5, 3.0])
    relaxations.expected_loss(logits, lambda b: b @ slope, "straight-through").backward()
    torch.testing.assert_close(logits.grad, _exact_gradient(logits.detach(), lambda b: b @ slope))


@pytest.mark.parametrize("name", relaxations.ESTIMATORS)
def test_every_estimator_trains_what_the_loss_holds(name: str) -> None:
    logits = torch.zeros(5, N_BITS, requires_grad=True)
    decoder = torch.nn.Linear(N_BITS, 1)
    per_item = relaxations.expected_loss(logits, lambda b: decoder(b)[:, 0], name, seed=0)
    assert per_item.shape == (5,)
    whole = relaxations.expected_loss(logits, lambda b: decoder(b).mean(), name, seed=0)
    assert whole.shape == ()
    torch.testing.assert_close(per_item.mean(), whole)
    whole.backward()
    assert decoder.weight.grad.abs().sum() > 0
    assert logits.grad.abs().sum() > 0


def test_reinforce_needs_two_codes() -> None:
    with pytest.raises(ValueError, match="n_samples"):
        relaxations.expected_loss(torch.zeros(1, 1), _table_loss, "reinforce-loo", n_samples=1)
