"""Estimators: scikit-learn's contract, bad input, codes, predictions, files."""

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import scipy.sparse as sp
import torch
from sklearn.base import is_classifier
from sklearn.datasets import make_classification
from sklearn.utils.estimator_checks import parametrize_with_checks

import ssbhash
from ssbhash.atomic import read_together, write_together
from ssbhash.models import load
from ssbhash.registry import METHODS as REGISTERED

PAPER = "ssb-vae:paper"
SUPERVISED = ["ssb-vae", PAPER, "phs-gs", "vdsh-s"]
UNSUPERVISED = ["bernoulli-vae", "vdsh"]
METHODS = [*SUPERVISED, *UNSUPERVISED]
# Networks this small are slower on several threads.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {"n_bits": 11, "n_epochs": 2, "n_hidden_units": 8, "batch_size": 16}


def small(method: str, **kwargs: Any) -> Any:
    name, _, preset = method.partition(":")
    form = {"preset": preset} if preset else {}
    return REGISTERED[name](**(SMALL | form | kwargs))


def test_every_method_is_tested() -> None:
    assert {method.partition(":")[0] for method in METHODS} == set(REGISTERED)


@pytest.fixture(scope="module")
def items() -> tuple[np.ndarray, np.ndarray]:
    """80 non-negative items of 12 features, 3 classes, a third of the labels hidden."""
    X, y = make_classification(80, 12, n_informative=8, n_classes=3, random_state=0)
    y[::3] = -1
    return np.abs(X).astype(np.float32), y


def expected_failures(estimator: Any) -> dict[str, str]:
    if not is_classifier(estimator):
        return {}
    failures = {"check_classifiers_classes": "classes -1 and 1: -1 is unlabelled"}
    if getattr(estimator, "preset", None) != "default":  # it falls back on logistic regressions
        failures["check_classifiers_train"] = "two epochs do not reach its accuracy"
    return failures


@parametrize_with_checks(
    [small(method) for method in METHODS], expected_failed_checks=expected_failures
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_the_signs_of_the_logits(method: str, items: Any) -> None:
    X, y = items
    hasher = small(method).fit(X, y)
    logits, codes = hasher.logits(X), hasher.transform(X)
    assert logits.dtype == np.float32
    assert logits.shape == (80, 11)
    np.testing.assert_array_equal(ssbhash.unpack(codes, 11), logits > 0)
    assert hasher.n_features_in_ == 12
    assert [row["epoch"] for row in hasher.history_] == [1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_gives_same_weights_and_leaves_the_global_stream_alone(
    method: str, items: Any
) -> None:
    X, y = items
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (small(method, seed=5).fit(X, y).logits(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, small(method, seed=6).fit(X, y).logits(X))
    assert torch.equal(state, torch.get_rng_state())


# The default SSB-VAE projects sparse items and scales dense ones.
@pytest.mark.parametrize("method", [method for method in METHODS if method != "ssb-vae"])
@pytest.mark.parametrize("reconstruction", ["multinomial", "gaussian"])
def test_sparse_and_dense_items_agree(method: str, reconstruction: str, items: Any) -> None:
    # Gaussian: sparse features are not centred, so dense ones with mean zero are compared.
    X, y = items
    X = np.where(X > 0.8, X, 0)
    if reconstruction == "gaussian":
        X = np.concatenate([X, -X])
        y = np.concatenate([y, y])
    hasher = small(method, reconstruction=reconstruction)
    dense = hasher.fit(X, y).logits(X)
    sparse = hasher.fit(sp.csr_array(X), y).logits(sp.csr_matrix(X))
    np.testing.assert_allclose(sparse, dense, rtol=0.02, atol=2e-4)


def test_code_of_an_item_does_not_depend_on_its_company(items: Any) -> None:
    X, y = items
    hasher = small("ssb-vae", n_hidden_units=500).fit(X, y)
    together = hasher.logits(X)
    alone = np.concatenate([hasher.logits(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("method", SUPERVISED)
def test_predictions(method: str, items: Any) -> None:
    X, y = items
    alpha = {"ssb-vae": {"dropout": 0.0, "n_hidden_units": 64}, "vdsh-s": {"alpha": 10.0}}.get(
        method, {"alpha": 1e-3}
    )
    hasher = small(method, **({"n_epochs": 80} | alpha)).fit(X, y)
    probabilities = hasher.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(hasher.classes_, [0, 1, 2])
    predicted = hasher.predict(X)
    np.testing.assert_array_equal(predicted, probabilities.argmax(1))
    known = y >= 0
    assert (predicted[known] == y[known]).mean() > 0.6  # chance is a third


@pytest.mark.parametrize("method", SUPERVISED)
def test_classes_may_be_strings(method: str, items: Any) -> None:
    X, y = items
    hasher = small(method).fit(X, np.array(["b", "a", "c"])[y])
    assert hasher.classes_.tolist() == ["a", "b", "c"]
    assert set(hasher.predict(X)) <= {"a", "b", "c"}


@pytest.mark.parametrize("method", SUPERVISED)
def test_several_labels_an_item(method: str, items: Any) -> None:
    X, y = items
    Y = np.stack([y == 0, y <= 1, y == 2, X[:, 0] > 1], 1).astype(int)
    Y[y < 0] = -1
    hasher = small(method, n_epochs=3, validation_fraction=0.3).fit(X, Y)
    probabilities = hasher.predict_proba(X)
    assert probabilities.shape == (80, 4)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    np.testing.assert_array_equal(hasher.predict(X), (probabilities > 0.5).astype(int))
    np.testing.assert_array_equal(hasher.classes_, [0, 1, 2, 3])
    assert 0 <= hasher.history_[-1]["val_accuracy"] <= 1


@pytest.mark.parametrize("method", UNSUPERVISED)
def test_unsupervised_methods_ignore_labels_and_predict_nothing(method: str, items: Any) -> None:
    X, y = items
    np.testing.assert_array_equal(
        small(method).fit(X, y).transform(X), small(method).fit(X).transform(X)
    )
    assert not hasattr(type(small(method)), "predict")


@pytest.mark.parametrize("method", ["vdsh", "vdsh-s"])
def test_median_rule_balances_every_bit(method: str, items: Any, tmp_path: Path) -> None:
    X, y = items
    hasher = small(method, threshold="median").fit(X, y)
    np.testing.assert_array_equal(ssbhash.unpack(hasher.transform(X), 11).sum(0), 40)
    zero = small(method).fit(X, y).logits(X)
    np.testing.assert_allclose(hasher.logits(X), zero - np.median(zero, axis=0), atol=1e-6)
    hasher.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).logits(X), hasher.logits(X))


def test_target_is_what_the_decoder_reconstructs(items: Any) -> None:
    X, y = items
    target = sp.csr_array(np.eye(7, dtype=np.float32)[np.arange(80) % 7] * 3)
    hasher = small(PAPER, n_epochs=60, alpha=0, beta=0).fit(X, y, target=target)
    assert hasher.history_[0]["reconstruction"] > hasher.history_[-1]["reconstruction"]
    # Three copies of a word say the same as one: rows are normalised.
    once = small(PAPER, n_epochs=1).fit(X, y, target=target / 3)
    thrice = small(PAPER, n_epochs=1).fit(X, y, target=target)
    np.testing.assert_allclose(once.logits(X), thrice.logits(X), rtol=1e-5, atol=1e-6)


def test_auto_reconstruction_follows_the_sign(items: Any) -> None:
    X, y = items
    for features, expected in ((X, "multinomial"), (X - 1, "gaussian")):
        hasher = small(PAPER).fit(features, y)
        assert hasher._model.network.shape.reconstruction == expected


def test_torch_tensors_go_in(items: Any) -> None:
    X, y = items
    hasher = small("ssb-vae").fit(torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_array_equal(
        hasher.transform(torch.from_numpy(X)), small("ssb-vae").fit(X, y).transform(X)
    )


def test_rows_without_features_are_encoded(items: Any) -> None:
    X, y = items
    X = X.copy()
    X[5:9] = 0
    hasher = small("ssb-vae").fit(sp.csr_array(X), y)
    assert np.isfinite(hasher.logits(sp.csr_array((4, 12)))).all()
    assert np.isfinite([row["loss"] for row in hasher.history_]).all()


BAD_ITEMS = {
    "nan": (lambda X: np.where(X > 2, np.nan, X), ValueError, "NaN"),
    "infinity": (lambda X: np.where(X > 2, np.inf, X), ValueError, "infinity"),
    "negative counts": (lambda X: X - 1, ValueError, "non-negative"),
    "negative sparse counts": (lambda X: sp.csr_array(X - 1), ValueError, "non-negative"),
    "one dimension": (lambda X: X[0], ValueError, "2D array"),
    "no rows": (lambda X: X[:0], ValueError, "0 sample"),
    "no features": (lambda X: X[:, :0], ValueError, "0 feature"),
    "strings": (lambda X: np.full(X.shape, "a"), ValueError, "could not convert"),
    "complex": (lambda X: X * 1j, ValueError, "Complex"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_bad_items(name: str, items: Any) -> None:
    X, y = items
    spoil, error, message = BAD_ITEMS[name]
    with pytest.raises(error, match=message):
        small(PAPER, reconstruction="multinomial").fit(spoil(X), y[: spoil(X).shape[0]])


BAD_LABELS = {
    "none": (lambda y: None, "requires y"),
    "too few": (lambda y: y[:-1], "79 rows"),
    "all hidden": (lambda y: np.full(80, -1), "all 80 labels"),
    "one class": (lambda y: np.where(y == 1, 1, -1), "one class.*-1, None and NaN mean unlabelled"),
    "real numbers": (lambda y: y + 0.5, "Unknown label type"),
    "infinity": (lambda y: np.where(y == 1, np.inf, y), "infinity"),
    "all nan": (lambda y: np.full(80, np.nan), "all 80 labels"),
    "half a row hidden": (lambda y: np.stack([y, np.zeros(80)], 1), "0 and 1"),
    "all rows hidden": (lambda y: np.full((80, 3), -1), "all 80 labels"),
    "not 0 or 1": (lambda y: np.full((80, 3), 2), "0 and 1"),
    "three dimensions": (lambda y: np.zeros((80, 2, 2)), "dimensions"),
}


@pytest.mark.parametrize("method", SUPERVISED)
@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels(method: str, name: str, items: Any) -> None:
    X, y = items
    spoil, message = BAD_LABELS[name]
    with pytest.raises(ValueError, match=message):
        small(method).fit(X, spoil(y))


BAD_PARAMETERS = [
    ({"n_bits": 0}, ValueError),
    ({"n_bits": -3}, ValueError),
    ({"n_bits": 1.5}, TypeError),
    ({"n_bits": True}, TypeError),
    ({"n_epochs": 0}, ValueError),
    ({"batch_size": 0}, ValueError),
    ({"n_hidden_units": "500"}, TypeError),
    ({"seed": -1}, ValueError),
    ({"seed": 2**63}, ValueError),
    ({"alpha": -1}, ValueError),
    ({"beta": np.nan}, ValueError),
    ({"gamma": "much"}, TypeError),
    ({"learning_rate": 0}, ValueError),
    ({"temperature": 0}, ValueError),
    ({"validation_fraction": 1}, ValueError),
    ({"validation_fraction": 0.001}, ValueError),
    ({"patience": 2}, ValueError),
    ({"patience": 0, "validation_fraction": 0.1}, ValueError),
    ({"monitor": "val_accuracy"}, ValueError),
    ({"monitor": "accuracy"}, ValueError),
    ({"reconstruction": "poisson"}, ValueError),
    ({"precision": "float16"}, ValueError),
    ({"device": "abacus"}, ValueError),
]


@pytest.mark.parametrize(("parameters", "error"), BAD_PARAMETERS)
def test_bad_parameters_are_named(parameters: dict[str, Any], error: type, items: Any) -> None:
    X, y = items
    with pytest.raises(error, match=next(iter(parameters))):
        small("ssb-vae", **parameters).fit(X, y)


@pytest.mark.parametrize(
    ("preset", "name", "value"),
    [
        ("default", "alpha", 1e-3),
        ("default", "gamma", 1e3),
        ("default", "beta", 0.5),
        ("default", "temperature", 1.0),
        ("default", "reconstruction", "gaussian"),
        ("paper", "dropout", 0.1),
        ("paper", "contrast_weight", 1.5),
        ("paper", "class_scale", 0.25),
        ("paper", "n_lsa_components", 4),
        ("paper", "n_labelled", 0),
    ],
)
def test_parameters_of_the_other_preset_are_refused(
    preset: str, name: str, value: Any, items: Any
) -> None:
    message = f"{name}={value!r} belongs to preset='(paper|default)'; preset='{preset}' has no"
    with pytest.raises(ValueError, match=message):
        small("ssb-vae", preset=preset, **{name: value}).fit(*items)


def test_the_default_takes_no_target(items: Any) -> None:
    X, y = items
    assert not small("ssb-vae").reconstructs
    with pytest.raises(ValueError, match="target would have no effect; preset='paper'"):
        small("ssb-vae").fit(X, y, target=X)
    with pytest.raises(ValueError, match="target would have no effect; preset='paper'"):
        ssbhash.tune(small("ssb-vae"), X, y, X, n_trials=1)


def test_bad_threshold_and_target(items: Any) -> None:
    X, _ = items
    with pytest.raises(ValueError, match="threshold"):
        small("vdsh", threshold="mean").fit(X)
    with pytest.raises(ValueError, match="target has 79 rows"):
        small("vdsh").fit(X, target=X[:79])
    with pytest.raises(ValueError, match="target contains NaN"):
        small("vdsh").fit(X, target=X * np.nan)


def test_cuda_is_refused_where_absent(items: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is present")
    with pytest.raises(ValueError, match="'cuda' is not available"):
        small("ssb-vae", device="cuda").fit(*items)


@pytest.mark.parametrize("method", METHODS)
def test_save_and_load(method: str, items: Any, tmp_path: Path) -> None:
    X, y = items
    likelihood = {} if method == "ssb-vae" else {"reconstruction": "gaussian"}
    hasher = small(method, **likelihood, validation_fraction=0.2).fit(X, y)
    hasher.save(tmp_path / "new" / "model")
    hasher.save(tmp_path / "new" / "model")  # again, over the first
    files = sorted(path.name for path in (tmp_path / "new" / "model").iterdir())
    assert files == ["config.json", "manifest.json", "weights.safetensors"]
    loaded = load(tmp_path / "new" / "model")
    assert type(loaded) is type(small(method))
    assert loaded.get_params() == hasher.get_params()
    assert loaded.history_ == hasher.history_
    assert loaded.n_features_in_ == 12
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.logits(X), hasher.logits(X))
    if method in SUPERVISED:
        np.testing.assert_array_equal(loaded.classes_, hasher.classes_)
        np.testing.assert_array_equal(loaded.predict(X), hasher.predict(X))


def test_a_model_moves_to_a_device(saved: Path, items: Any) -> None:
    X, _ = items
    hasher = load(saved, device="cpu")
    assert hasher.to("cpu") is hasher
    assert type(hasher).load(saved, device="auto").logits(X) == pytest.approx(hasher.logits(X))
    with pytest.raises(ValueError, match="'abacus' is not available"):
        load(saved, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' is not available"):
            hasher.to("cuda")


def test_load_keeps_string_classes_and_feature_names(items: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = items
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(12)])
    hasher = small("ssb-vae").fit(frame, np.array(["b", "a", "c"], dtype=object)[y])
    hasher.save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(loaded.predict(frame), hasher.predict(frame))


@pytest.fixture
def saved(items: Any, tmp_path: Path) -> Path:
    small("ssb-vae").fit(*items).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_file(saved: Path, name: str, size: int) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:size])
    with pytest.raises(ValueError, match=name):
        load(saved)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff\xfe\x00", b"PK\x03\x04"])
def test_foreign_file(saved: Path, name: str, content: bytes) -> None:
    (saved / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load(saved)


def test_missing_file_and_other_method(saved: Path) -> None:
    with pytest.raises(ValueError, match="PHSGS cannot open"):
        ssbhash.PHSGS.load(saved)
    assert isinstance(ssbhash.SSBVAE.load(saved), ssbhash.SSBVAE)
    (saved / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="weights"):
        load(saved)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(saved / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"version": 99},
        {"parameters": {"n_bits": "many"}},
        {"parameters": {"spell": 1}},
        {"shape": {}},
        {"labels": {"dtype": "what", "classes": [1], "multilabel": False}},
        {"labels": None, "history": None, "interrupted": None, "shape": None},
    ],
)
def test_malformed_config(saved: Path, change: dict[str, Any]) -> None:
    config = json.loads((saved / "config.json").read_text())
    contents = read_together(saved) | {"config.json": json.dumps(config | change).encode()}
    write_together(saved, contents)
    with pytest.raises(ValueError, match=r"malformed|method|version"):
        load(saved)


def test_failed_save_leaves_the_old_model(
    saved: Path, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def no_space(*paths: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        small("ssb-vae", seed=9).fit(*items).save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"device": torch.device("cpu")}, [0, 1]),
        ({"dropout": Fraction(1, 64)}, [0, 1]),
        ({"dropout": np.float32(0.5)}, ["ant", "bee"]),
    ],
)
def test_what_fits_can_be_saved(items: Any, tmp_path: Path, options: Any, classes: Any) -> None:
    X, y = items
    target = np.array(classes)[(y > 0).astype(int)]
    hasher = small("ssb-vae", **options).fit(X, target)
    hasher.save(tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.predict(X), hasher.predict(X))


def test_labels_that_cannot_be_saved_are_refused_before_training(
    items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = items
    monkeypatch.setattr("ssbhash.models.base.Training", None)
    odd = np.array([1, 2], "m8[D]")[(y > 0).astype(int)]
    with pytest.raises(TypeError, match="timedelta64"):
        small("ssb-vae").fit(X, odd)


def test_a_checkpoint_knows_equal_parameters(items: Any, tmp_path: Path) -> None:
    X, y = items
    first = small("ssb-vae", checkpoint=tmp_path, dropout=np.float64(0.25)).fit(X, y)
    again = small("ssb-vae", checkpoint=tmp_path, dropout=0.25).fit(X, y)
    assert again.history_ == first.history_
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 200):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ValueError, match="no checkpoint"):
            small("ssb-vae", checkpoint=tmp_path, dropout=0.25).fit(X, y)


def test_save_where_a_file_is_in_the_way(items: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        small("ssb-vae").fit(*items).save(tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"preset": "paper"}])
def test_thousands_of_classes(options: dict[str, Any], tmp_path: Path) -> None:
    n = 4000
    X = np.random.default_rng(0).normal(size=(n, 20)).astype(np.float32)
    kept: dict[str, Any] = {"n_bits": 32, "n_epochs": 1, "n_hidden_units": 16, "verbose": False}
    method = ssbhash.SSBVAE if options else ssbhash.VDSHS
    hasher = method(**kept, **options).fit(np.tile(X, (2, 1)), np.arange(2 * n) % n)
    hasher.save(tmp_path)
    again = load(tmp_path)
    assert again.predict_proba(X[:9]).shape == (9, n)
    np.testing.assert_array_equal(again.transform(X), hasher.transform(X))
