"""Both implementations of the kernels compute the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ssbhash.engines import native_module
from ssbhash.kernels import (
    AdamState,
    ClassAndItem,
    Dropout,
    Missed,
    Nonzeros,
    Norm,
    kernels_for,
    native,
    plain,
)

pytestmark = pytest.mark.skipif(native_module() is None, reason="the extension is not built")


@pytest.fixture
def generator() -> Any:
    return torch.Generator().manual_seed(0)


def same(name: str, *arguments: Any) -> None:
    """Compare results, and what is written in place."""
    results = []
    for module in (native, plain):
        copies = [copied(x) for x in arguments]
        results.append((flat(getattr(module, name)(*copies)), flat(copies)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, Norm | AdamState):
        return type(value)(**{name: copied(x) for name, x in vars(value).items()})
    return value


def flat(value: Any) -> Any:
    if isinstance(value, Norm | Dropout | AdamState | Nonzeros | ClassAndItem):
        return flat(list(vars(value).values()))
    if isinstance(value, list | tuple):
        return [flat(x) for x in value]
    return value


@pytest.mark.parametrize(("n_sums", "width"), [(0, 3), (1, 1), (70, 130)])
def test_sum_rows(generator: Any, n_sums: int, width: int) -> None:
    starts = torch.arange(n_sums) * 2  # the last sum has three values
    n = 2 * n_sums + 1 if n_sums else 0
    ids = torch.randint(0, 9, (n,), generator=generator)
    values, matrix = (torch.randn(*s, generator=generator) for s in ((n,), (9, width)))
    same("sum_rows", ids, values, starts, matrix)


@pytest.mark.parametrize(("n", "width"), [(2, 1), (7, 5), (100, 130)])
@pytest.mark.parametrize("drops", [False, True])
def test_relu_norm(generator: Any, n: int, width: int, drops: bool) -> None:
    product, grad = (torch.randn(n, width, generator=generator) for _ in range(2))
    bias, scale, shift, mean = (torch.randn(width, generator=generator) for _ in range(4))
    norm = Norm(scale, shift, mean, scale.exp(), 1e-3, 0.1)
    dropout = drawn(generator, n, width) if drops else None
    same("relu_norm", product, bias, norm, dropout)
    _, saved = plain.relu_norm(product, bias, norm, dropout)
    same("relu_norm_backward", grad, saved, scale, dropout)


def drawn(generator: Any, *shape: int) -> Dropout:
    units = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Dropout(units, threshold=77)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (100, 130)])
def test_dropped(generator: Any, shape: tuple[int, int]) -> None:
    same("dropped", torch.randn(shape, generator=generator), drawn(generator, *shape))


@pytest.mark.parametrize(("n", "n_targets", "n_bits"), [(1, 1, 1), (3, 481, 7), (40, 1000, 32)])
def test_softmax_regression(generator: Any, n: int, n_targets: int, n_bits: int) -> None:
    shapes = (n, n_bits), (n_targets, n_bits), (n_targets,)
    code, weight, bias = (torch.randn(*shape, generator=generator) for shape in shapes)
    columns = torch.randint(0, n_targets, (3 * n,), generator=generator)
    rows = torch.arange(3 * n) // 3
    target = Nonzeros(columns, torch.rand(3 * n, generator=generator), rows, torch.arange(n) * 3)
    same("softmax_regression", code, weight, bias, target, -16.0)


def state(generator: Any, *shape: int) -> AdamState:
    weight, mean, square = (torch.randn(*shape, generator=generator) for _ in range(3))
    return AdamState(weight, mean, square.square(), 1e-7)


@pytest.mark.parametrize("width", [1, 21])
def test_adam(generator: Any, width: int) -> None:
    rows = torch.tensor([0, 3, 4, 9])
    missed = Missed(*(torch.rand(4, generator=generator) + 0.1 for _ in range(3)))
    gradient = torch.randn(4, width, generator=generator)
    same("catch_up", state(generator, 10, width), rows, missed)
    same("adam_rows", state(generator, 10, width), rows, gradient, 0.01)
    same("adam", state(generator, 4 * width), [*gradient], 0.01, 0.0)
    averaged = replace(state(generator, 4 * width), average=torch.zeros(4 * width))
    same("adam", averaged, [*gradient], 0.01, 0.3)


def test_each_tensor_gets_kernels_that_can_work_on_it() -> None:
    assert kernels_for(torch.zeros(1)) is native
    assert kernels_for(torch.zeros(1, dtype=torch.float64)) is plain
    assert kernels_for(torch.zeros(1, device="meta")) is plain


def test_wrong_arrays_are_refused() -> None:
    core: Any = native_module()
    matrix = torch.zeros(3, 2).numpy()
    ids, values, starts = torch.tensor([3]).numpy(), matrix[0, :1], torch.tensor([0]).numpy()
    with pytest.raises(IndexError, match=r"ids must be 0 \.\.\. 2, got 3"):
        core.sum_rows(core.SparseRows(ids, values, starts), matrix, 1)
    with pytest.raises(ValueError, match="mean must have 6 numbers, got 3"):
        core.Adam(matrix, matrix[:, 0].copy(), matrix, 1e-7)
    with pytest.raises(ValueError, match="dropout must have 6 bytes, got 5"):
        core.dropped(matrix, core.Dropout(np.zeros(5, np.uint8), 77, 1.5), 1)
    adam = core.Adam(matrix, matrix.copy(), matrix.copy(), 1e-7)
    with pytest.raises(IndexError, match=r"rows must be 0 \.\.\. 2, got 3"):
        adam.step_rows(ids, matrix[:1], 0.1, 1)
    with pytest.raises(ValueError, match="gradient must have 2 numbers"):
        adam.step_rows(starts, matrix, 0.1, 1)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize(("n_pairs", "n_others"), [(1, 0), (8, 1), (13, 5)])
@pytest.mark.parametrize(
    ("n_classes", "width", "size"), [(2, 3, 1.0), (8, 16, 30.0), (350, 9, 9.0)]
)
def test_class_and_item(
    generator: Any,
    multilabel: bool,
    n_pairs: int,
    n_others: int,
    n_classes: int,
    width: int,
    size: float,
) -> None:
    n = 2 * n_pairs + n_others
    outputs = size * torch.randn(n, n_classes + width, generator=generator)
    outputs[0, n_classes:] = 0
    target = torch.softmax(torch.randn(n, n_classes, generator=generator), 1)
    share = torch.rand(n, generator=generator)
    given = ClassAndItem(target, share, n_pairs, multilabel, 7.0, 1e-12, 0.5)
    outputs[1:, n_classes:] /= size  # only their directions matter
    same("class_and_item", outputs, given)
