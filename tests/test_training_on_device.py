"""Training on a CUDA device: the same methods, forms of input and files as on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device here", allow_module_level=True)

import scipy.sparse as sp
from sklearn.datasets import load_digits

import ssbhash
from ssbhash import metrics
from ssbhash.registry import METHODS as REGISTERED
from ssbhash.training.distributed import default_device  # before conftest.py hides the card

METHODS = ["ssb-vae", "ssb-vae:paper", "phs-gs", "vdsh-s", "bernoulli-vae", "vdsh"]
FORMS = {"dense": np.asarray, "sparse": sp.csr_array}
DIGITS, KINDS = load_digits(return_X_y=True)
KNOWN = np.where(np.random.default_rng(0).random(len(KINDS)) < 0.1, KINDS, -1)
N = 1500  # items; the rest are queries


def small(method: str, **options: Any) -> Any:
    name, _, preset = method.partition(":")
    form = {"preset": preset} if preset else {}
    few: dict[str, Any] = {"n_bits": 32, "n_epochs": 3, "device": "cuda", "verbose": False}
    return REGISTERED[name](**(few | form | options))


def share_of_equal_bits(first: Any, second: Any) -> float:
    return 1 - float(np.unpackbits(first ^ second).mean())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_a_model_trained_there_encodes_here(
    method: str, form: str, precision: str, tmp_path: Path
) -> None:
    X = FORMS[form](DIGITS[:300].astype(np.float32))
    hasher = small(method, precision=precision).fit(X, KNOWN[:300])
    assert np.isfinite([row["loss"] for row in hasher.history_]).all()
    there, codes = hasher.logits(X), hasher.transform(X)
    hasher.save(tmp_path)
    loaded = ssbhash.load(tmp_path)
    assert share_of_equal_bits(loaded.transform(X), codes) > 0.99
    here = hasher.to("cpu").logits(X)
    np.testing.assert_allclose(here, there, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(loaded.logits(X), here)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_codes(method: str, form: str) -> None:
    X = FORMS[form](DIGITS[:300].astype(np.float32))
    first, second = (small(method).fit(X, KNOWN[:300]).transform(X) for _ in range(2))
    assert share_of_equal_bits(first, second) > 0.97  # sums by atomics have no order


@pytest.mark.parametrize("form", FORMS)
def test_codes_are_as_good_as_those_of_the_cpu(form: str) -> None:
    X = FORMS[form](DIGITS.astype(np.float32))
    precision = []
    for device in ("cpu", "cuda"):
        hasher = ssbhash.SSBVAE(32, device=device, seed=0, verbose=False).fit(X[:N], KNOWN[:N])
        codes = hasher.transform(X)
        precision.append(metrics.precision_at(codes[:N], KINDS[:N], codes[N:], KINDS[N:], 100))
    assert abs(precision[0] - precision[1]) < 0.02, precision


def test_tensors_on_the_device_are_features_and_labels() -> None:
    X, y = torch.from_numpy(DIGITS[:300].astype(np.float32)), torch.from_numpy(KNOWN[:300])
    expected = small("ssb-vae").fit(X, y).transform(X)
    hasher = small("ssb-vae").fit(X.cuda(), y.cuda())
    assert share_of_equal_bits(hasher.transform(X.cuda()), expected) > 0.97


@pytest.mark.parametrize("method", ["ssb-vae", "vdsh-s"])
def test_training_goes_on_from_a_checkpoint(method: str, tmp_path: Path) -> None:
    X, y = DIGITS[:300].astype(np.float32), KNOWN[:300]
    whole = small(method).fit(X, y).logits(X)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise InterruptedError

    cut = small(method, checkpoint=tmp_path / "state")
    with pytest.raises(InterruptedError):
        cut.fit(X, y, callbacks=[stop])
    rest = small(method, checkpoint=tmp_path / "state").fit(X, y)
    np.testing.assert_allclose(rest.logits(X), whole, rtol=0.05, atol=0.05)


def test_the_default_device_is_the_card() -> None:
    assert default_device() == "cuda"
