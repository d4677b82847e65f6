import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ssbhash
from ssbhash.engines import available
from ssbhash.nn import torch_ops
from ssbhash.nn.relaxations import expected_loss, relax

LOGITS = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
CALLS = {
    "sample": (torch.ops.ssbhash.sample.default, (5, 2)),
    "binarize": (torch.ops.ssbhash.binarize.default, (0.1,)),
    "sample_relaxed": (torch.ops.ssbhash.sample_relaxed.default, (5, 0.5, 2)),
    "sample_bits": (torch.ops.ssbhash.sample_bits.default, (5, 2)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("layout", ["plain", "transposed", "bfloat16", "with gradient", "device"])
def test_operators_pass_opcheck(name: str, layout: str) -> None:
    operator, arguments = CALLS[name]
    logits = {
        "plain": LOGITS,
        "transposed": LOGITS.T.contiguous().T,
        "bfloat16": LOGITS.bfloat16(),
        "with gradient": LOGITS.clone().requires_grad_(),
        "device": LOGITS.to("cuda" if torch.cuda.is_available() else "cpu"),
    }[layout]
    torch.library.opcheck(operator, (logits, *arguments))


def test_operators_are_the_public_functions() -> None:
    assert torch.equal(torch_ops.sample(LOGITS, 5, 2), ssbhash.sample(LOGITS, 5, first_row=2))
    assert torch.equal(torch_ops.binarize(LOGITS, 0.1), ssbhash.binarize(LOGITS, 0.1))
    bits = ssbhash.unpack(ssbhash.sample(LOGITS, 5), 11)
    assert torch.equal(torch_ops.sample_bits(LOGITS, 5), bits.float())
    relaxed = ssbhash.sample_relaxed(LOGITS, 5, tau=0.5)
    assert torch.equal(torch_ops.sample_relaxed(LOGITS, 5, 0.5), relaxed)


@pytest.mark.parametrize("tau", [2 / 3, 0.3])
def test_the_derivative_is_that_of_the_formula(tau: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    weights = torch.arange(66.0).reshape(6, 11)
    (relax(logits, tau=tau, seed=1) * weights).sum().backward()
    same = LOGITS.double().requires_grad_()
    noise = torch.logit(torch_ops.sample_relaxed(LOGITS.double() * 0, 1, 1.0))
    (torch.sigmoid((same + noise) / tau) * weights).sum().backward()
    torch.testing.assert_close(logits.grad, same.grad.float(), rtol=1e-4, atol=1e-4)


def test_rows_of_several_processes_are_those_of_one() -> None:
    whole = relax(LOGITS, seed=3)
    parts = [relax(LOGITS[:4], seed=3), relax(LOGITS[4:], seed=3, first_row=4)]
    assert torch.equal(whole, torch.cat(parts))


def test_compiled_training_code_draws_the_same() -> None:
    def step(logits: torch.Tensor, seed: int) -> torch.Tensor:
        bits = relax(logits, "straight-through", seed=seed)
        codes = torch_ops.binarize(logits)
        return (relax(logits, seed=seed) * bits).sum() + codes.sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for seed in (1, 2, 3):
        eager_logits, logits = (LOGITS.clone().requires_grad_() for _ in range(2))
        expected, found = step(eager_logits, seed), compiled(logits, seed)
        torch.testing.assert_close(found, expected)
        expected.backward()
        found.backward()
        torch.testing.assert_close(logits.grad, eager_logits.grad)


def test_a_logit_that_is_not_finite_is_named() -> None:
    bad = LOGITS.clone()
    bad[4, 3] = float("nan")
    with pytest.raises(ValueError, match="row 4 holds a NaN"):
        relax(bad, seed=1)
    with pytest.raises(ValueError, match="row 4 holds a NaN"):
        expected_loss(bad, lambda bits: bits.sum(1), "disarm", seed=1)


def test_seeds_are_checked() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*63\)"):
            relax(LOGITS, seed=seed)
    with pytest.raises(ValueError, match="tau must be"):
        relax(LOGITS, seed=1, tau=-1)


def test_logits_may_have_any_number_of_dimensions() -> None:
    cube = torch.randn(2, 3, 5)
    flat = relax(cube.reshape(6, 5), seed=2)
    assert torch.equal(relax(cube, seed=2).reshape(6, 5), flat)
    assert np.isfinite(relax(cube[0, 0], seed=2).numpy()).all()


@pytest.mark.parametrize("name", CALLS)
def test_one_row_has_one_dimension_in_eager_and_fake_mode(name: str) -> None:
    operator, arguments = CALLS[name]
    row = LOGITS[0]
    with torch._subclasses.FakeTensorMode() as mode:
        fake = operator(mode.from_tensor(row), *arguments)
    assert fake.shape == operator(row, *arguments).shape
    torch.library.opcheck(operator, (row, *arguments))


@pytest.mark.parametrize("name", ["sample_relaxed", "sample_bits"])
def test_functional_derivatives_are_those_of_backward(name: str) -> None:
    operator, arguments = CALLS[name]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return operator(logits, *arguments).square().sum()

    logits = LOGITS.clone().requires_grad_()
    loss(logits).backward()
    assert torch.equal(torch.func.grad(loss)(LOGITS), logits.grad)
    batch = torch.stack([LOGITS, LOGITS / 2, -LOGITS])
    each = torch.stack([torch.func.grad(loss)(item) for item in batch])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(batch), each)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dim", [0, 1])
def test_a_batch_is_its_items(name: str, dim: int) -> None:
    operator, arguments = CALLS[name]
    batch = torch.stack([LOGITS, LOGITS / 2, -LOGITS], dim=dim)
    found = torch.func.vmap(lambda logits: operator(logits, *arguments), in_dims=dim)(batch)
    assert torch.equal(
        found, torch.stack([operator(item, *arguments) for item in batch.unbind(dim)])
    )


@pytest.mark.parametrize("name", ["sample_relaxed", "sample_bits"])
def test_on_a_device_the_draws_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cuda" not in available():
        pytest.skip("neither a device nor its emulator")
    from ssbhash.engines import cuda

    operator, arguments = CALLS[name]
    expected = operator(LOGITS, *arguments)
    monkeypatch.setattr(torch_ops, "_stays_on_device", lambda logits: True)
    on_device = LOGITS.to(cuda._devices()[0])
    assert torch.equal(operator(on_device, *arguments).cpu(), expected)
    bad = on_device.clone()
    bad[2, 1] = torch.nan
    found = operator(bad, *arguments).cpu()
    assert found[2, 1].isnan()
    assert torch.equal(
        found.nan_to_num(),
        expected.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(0.0)),
    )
