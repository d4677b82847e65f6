"""Models do not depend on the caller's settings of torch, nor change them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import ssbhash
from ssbhash.models import METHODS

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(90, 20)), np.arange(90) % 3 - 1


def small(name: str) -> Any:
    return METHODS[name](n_bits=8, n_epochs=2, n_hidden_units=8, batch_size=32, verbose=False)


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    # Tensors without memory: whatever is made there by mistake cannot be read.
    "default device": lambda: default_device("meta"),
    "products in bfloat16": lambda: matmul_precision("medium"),
    "device as a context": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module", params=METHODS)
def plain(request: pytest.FixtureRequest) -> Any:
    """A model that was fitted under torch's own settings."""
    return small(request.param).fit(X, Y)


@pytest.mark.parametrize("setting", SETTINGS)
def test_models_are_the_same_under_any_setting(setting: str, plain: Any, tmp_path: Path) -> None:
    plain.save(tmp_path)
    expected = plain.logits(X)
    with SETTINGS[setting]():
        before = (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_float32_matmul_precision(),
        )
        found = [small(plain.method).fit(X, Y), plain, ssbhash.load(tmp_path)]
        found[0].save(tmp_path / "within")
        found.append(ssbhash.load(tmp_path / "within"))
        logits = [hasher.logits(X) for hasher in found]
        if hasattr(plain, "predict"):
            np.testing.assert_array_equal(found[0].predict(X), plain.predict(X))
        assert before == (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_float32_matmul_precision(),
        )
    for one in logits:
        np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(found[0].logits(X), expected)  # outside, too


def test_mixed_precision_is_ours_within_the_caller_s() -> None:
    """Autocast keeps casts of weights until its outermost context ends: they must not be ours."""
    expected = small("phs-gs").set_params(precision="bfloat16", learning_rate=0.1).fit(X, Y)
    plain = small("phs-gs").set_params(learning_rate=0.1).fit(X, Y)
    with torch.autocast("cpu", torch.bfloat16):
        found = small("phs-gs").set_params(precision="bfloat16", learning_rate=0.1).fit(X, Y)
    np.testing.assert_array_equal(found.logits(X), expected.logits(X))
    loss = [hasher.history_[-1]["loss"] for hasher in (expected, plain)]
    assert loss[0] == pytest.approx(loss[1], rel=0.02)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_encodes_and_trains_in_a_forked_child(tmp_path: Path) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)  # whose OpenMP threads the child does not have
    try:
        hasher = small("ssb-vae").set_params(n_hidden_units=600, batch_size=90).fit(X, Y)
        expected = hasher.transform(X)
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that waits forever is ended, and fails
            np.save(tmp_path / "codes.npy", hasher.transform(X))
            hasher.fit(X, Y)
            os._exit(0)
    finally:
        torch.set_num_threads(n_threads)
    _, status = os.waitpid(child, 0)
    assert status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)
