"""Named splits: on the real files where they are present, and on bad ones."""

import itertools
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
import scipy.sparse as sp

from ssbhash.paper import datasets

DATA_DIR = Path(os.environ.get("SSBHASH_DATA", "no-data"))
needs_data = pytest.mark.skipif(not DATA_DIR.is_dir(), reason="the data files are not here")

# name: database, queries, features, label shape
SIZES = {
    "snippets": (10060, 2280, 10000, ()),
    "snippets_minilm": (10060, 2280, 384, ()),
    "20news": (11314, 7532, 10000, ()),
    "tmc": (21519, 7077, 500, (22,)),
    "cifar10": (59000, 1000, 256, ()),
}


@cache
def loaded(name: str) -> datasets.Dataset:
    return datasets.load(name, DATA_DIR)


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_split(name):
    data = loaded(name)
    n, n_queries, n_features, label_shape = SIZES[name]
    assert data.X.shape == (n, n_features)
    assert data.X_query.shape == (n_queries, n_features)
    assert data.y.shape == (n, *label_shape)
    assert data.y_query.shape == (n_queries, *label_shape)
    for features in (data.X, data.X_query):
        assert features.dtype == np.float32
        assert np.isfinite(features.data if sp.issparse(features) else features).all()
    n_classes = label_shape[0] if label_shape else int(data.y.max()) + 1
    assert len(data.class_names) == n_classes
    assert (data.target is None) == (name in ("snippets_minilm", "cifar10"))
    if data.target is not None:
        sums = np.asarray(data.target.sum(axis=1)).ravel()
        np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-5)


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_hidden_labels_are_nested_and_reproducible(name):
    data = loaded(name)
    shown = []
    for supervision in (0.01, 0.1, 0.5, 1.0):
        y = data.hide_labels(supervision, seed=7)
        kept = (y >= 0).reshape(len(y), -1).all(axis=1)
        np.testing.assert_array_equal(y[kept], data.y[kept])
        assert (y[~kept] == -1).all()
        assert len(data.y) * supervision - 2 < kept.sum() <= len(data.y) * supervision
        np.testing.assert_array_equal(y, data.hide_labels(supervision, seed=7))
        shown.append(kept)
    for fewer, more in itertools.pairwise(shown):
        assert (fewer <= more).all()
    assert (data.hide_labels(0.1, seed=8) != data.hide_labels(0.1, seed=7)).any()


@needs_data
def test_snippets_hides_the_labels_that_the_reference_hid():
    data = loaded("snippets")
    assert sorted(data.orders) == [20, 101, 144, 1028, 2044]
    train, val = data.orders[20]
    expected = np.concatenate([train[:905], 9054 + val[:100]])
    np.testing.assert_array_equal(data.labelled(0.1, seed=20), expected)


@needs_data
def test_snippets_from_texts_where_the_reference_features_are_absent(tmp_path):
    data = datasets.load("snippets", DATA_DIR, reference_dir=tmp_path)
    assert data.X.shape == (10060, 10000)
    assert data.source == "log(1 + tf), built here"
    assert data.source != loaded("snippets").source


@needs_data
def test_queries_of_cifar10_are_100_of_each_class():
    assert np.bincount(loaded("cifar10").y_query).tolist() == [100] * 10


@needs_data
def test_folder_from_the_environment(monkeypatch):
    monkeypatch.setenv("SSBHASH_DATA", str(DATA_DIR))
    assert datasets.load("tmc").X.shape == (21519, 500)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"dataset must be one of snippets, .*; got 'mnist'"):
        datasets.load("mnist", ".")


def test_no_folder(monkeypatch):
    monkeypatch.delenv("SSBHASH_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="SSBHASH_DATA"):
        datasets.load("tmc")


@pytest.mark.parametrize("name", SIZES)
def test_missing_file(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        datasets.load(name, tmp_path)


def test_missing_reference_file(tmp_path):
    (tmp_path / "reference" / "snippets").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"labels\.npz"):
        datasets.load("snippets", tmp_path / "data")


def test_wrong_checksum(tmp_path):
    (tmp_path / "tmc.npz").write_bytes(b"not the real one")
    with pytest.raises(ValueError, match=r"tmc\.npz is not the file .* SHA-256"):
        datasets.load("tmc", tmp_path)


@pytest.mark.parametrize("supervision", [0, -0.1, 1.1, float("nan")])
def test_bad_level_of_supervision(supervision):
    data = datasets.Dataset("tiny", np.zeros((4, 1)), np.zeros(4, int), None, None, ("a",))
    with pytest.raises(ValueError, match="supervision must be in"):
        data.labelled(supervision, seed=0)


def test_one_label_remains_at_the_lowest_level():
    data = datasets.Dataset("tiny", np.zeros((4, 1)), np.zeros(4, int), None, None, ("a",))
    assert len(data.labelled(0.001, seed=0)) == 1


def test_20_newsgroups_is_fetched_on_request_only(tmp_path, monkeypatch):
    from types import SimpleNamespace

    def fetch(subset, shuffle):
        assert not shuffle
        texts = ["green tea leaves", "red ants bite", "green ants", "red tea leaves"] * 3
        return SimpleNamespace(data=texts, target=np.arange(12) % 2, target_names=["x", "y"])

    monkeypatch.setattr("sklearn.datasets.fetch_20newsgroups", fetch)
    data = datasets.load("20news", tmp_path, download=True)
    assert data.X.shape == (12, 6)  # ants, bite, green, leaves, red, tea
    assert data.class_names == ("x", "y")
    with pytest.raises(FileNotFoundError, match=r"20news\.jsonl\.gz"):
        datasets.load("20news", tmp_path)
