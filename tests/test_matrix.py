"""The same rows in any form give the same model and the same codes, or are refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssbhash.inputs import CsrShards, as_matrix, canonical, row_source
from ssbhash.models import BASELINES, METHODS

torch.set_num_threads(1)

N_ITEMS, N_FEATURES = 60, 12
SMALL: dict[str, Any] = {"n_epochs": 1, "n_hidden_units": 6, "batch_size": 16, "verbose": False}


def small(name: str) -> Any:
    if name in BASELINES:
        return BASELINES[name](n_bits=9)
    method, _, preset = name.partition(":")
    return METHODS[method](n_bits=9, **SMALL, **({"preset": preset} if preset else {}))


ESTIMATORS = [*METHODS, "ssb-vae:paper", *BASELINES]


def rows(density: float, signed: bool) -> Any:
    """Halves of whole numbers, which float16 and bfloat16 hold exactly."""
    rng = np.random.default_rng(3)
    values = rng.integers(1, 60, (N_ITEMS, N_FEATURES)) / 2
    values *= rng.random(values.shape) < density
    return (values * rng.choice([-1, 1], values.shape) if signed else values).astype(np.float32)


def with_zeros_and_duplicates(X: Any) -> Any:
    """COO with stored zeros and each entry in two parts, in random order."""
    rng = np.random.default_rng(5)
    entry_rows, columns = np.nonzero(X)
    values = X[entry_rows, columns] - 1
    zero_rows, zero_columns = np.nonzero(X == 0)
    data = np.concatenate([values, np.ones_like(values), np.zeros(len(zero_rows), X.dtype)])
    places = (
        np.concatenate([entry_rows, entry_rows, zero_rows]),
        np.concatenate([columns, columns, zero_columns]),
    )
    order = rng.permutation(len(data))
    return sp.coo_matrix((data[order], tuple(place[order] for place in places)), X.shape)


def unsorted_csr(X: Any) -> Any:
    csr = sp.csr_matrix(X)
    for row in range(len(X)):
        part = slice(*csr.indptr[row : row + 2])
        csr.indices[part], csr.data[part] = csr.indices[part][::-1], csr.data[part][::-1]
    csr.has_sorted_indices = False
    return csr


def duplicates_csr(X: Any) -> Any:
    """Each entry twice in one row of a CSR matrix, which `.tocsr()` leaves as it is."""
    half = sp.csr_matrix(X / 2)
    indptr = 2 * half.indptr
    indices, data = np.repeat(half.indices, 2), np.repeat(half.data, 2)
    return sp.csr_matrix((data, indices, indptr), X.shape)


def read_only(X: Any) -> Any:
    copy = X.copy()
    copy.flags.writeable = False
    return copy


def memory_mapped(dtype: str) -> Any:
    def make(X: Any, folder: Path) -> Any:
        np.save(folder / "x.npy", X.astype(dtype))
        return np.load(folder / "x.npy", mmap_mode="r")

    return make


def shards(X: Any, folder: Path) -> Any:
    sp.save_npz(folder / "0.npz", sp.csr_matrix(X))
    return CsrShards(folder)


FORMS = {
    "float64": lambda X, _: X.astype(np.float64),
    "float16": lambda X, _: X.astype(np.float16),
    "big-endian": lambda X, _: X.astype(">f4"),
    "list": lambda X, _: X.tolist(),
    "Fortran": lambda X, _: np.asfortranarray(X),
    "strided": lambda X, _: np.repeat(X, 2, axis=1)[:, ::2],
    "read-only": lambda X, _: read_only(X),
    "memory-mapped": memory_mapped("f4"),
    "memory-mapped float64": memory_mapped("f8"),
    "shards": shards,
    "csr_matrix": lambda X, _: sp.csr_matrix(X),
    "csr_array float64": lambda X, _: sp.csr_array(X.astype(np.float64)),
    "csr 64-bit": lambda X, _: long_indices(X),
    "csc_array": lambda X, _: sp.csc_array(X),
    "bsr_matrix": lambda X, _: sp.bsr_matrix(X, blocksize=(2, 3)),
    "dia_matrix": lambda X, _: sp.dia_matrix(X),
    "lil_array": lambda X, _: sp.lil_array(X),
    "dok_matrix": lambda X, _: sp.dok_matrix(X),
    "zeros and duplicates": lambda X, _: with_zeros_and_duplicates(X),
    "duplicates in CSR": lambda X, _: duplicates_csr(X),
    "unsorted CSR": lambda X, _: unsorted_csr(X),
    "torch": lambda X, _: torch.from_numpy(X).requires_grad_(),
    "bfloat16": lambda X, _: torch.from_numpy(X).to(torch.bfloat16),
    "torch COO": lambda X, _: torch.from_numpy(X).to_sparse(),
    "torch CSR": lambda X, _: torch.from_numpy(X).to_sparse_csr(),
    "unmasked": lambda X, _: np.ma.masked_array(X, mask=False),
}


def long_indices(X: Any) -> Any:
    csr = sp.csr_matrix(X)
    csr.indptr, csr.indices = csr.indptr.astype(np.int64), csr.indices.astype(np.int64)
    return csr


def contents(X: Any) -> list[Any]:
    """Everything that a matrix holds, in the order that it holds it."""
    if sp.issparse(X):
        return [getattr(X, name).copy() for name in ("data", "indices", "indptr")]
    return [X.copy()]


y = np.where(np.arange(N_ITEMS) % 4, np.arange(N_ITEMS) % 3, -1)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("signed", [False, True], ids=["counts", "signed"])
@pytest.mark.parametrize("density", [0.05, 0.5, 1])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_forms_agree(name: str, density: float, signed: bool, tmp_path: Path) -> None:
    X = rows(density, signed)
    plain = small(name).fit(X, y)
    expected = plain.logits(X)
    for form, make in FORMS.items():
        folder = tmp_path / form
        folder.mkdir()
        other = make(X, folder)
        assert np.array_equal(plain.logits(other), expected), f"encoding {form}"
        assert np.array_equal(small(name).fit(other, y).logits(X), expected), f"fitting {form}"


@pytest.mark.parametrize("form", ["zeros and duplicates", "duplicates in CSR", "unsorted CSR"])
@pytest.mark.parametrize("name", ["ssb-vae", "vdsh", "classifier", "sign"])
def test_the_caller_s_matrix_is_left_alone(name: str, form: str, tmp_path: Path) -> None:
    X = FORMS[form](rows(0.3, False), tmp_path)
    X = X if sp.issparse(X) and X.format == "csr" else sp.csr_matrix(X.tocsc()).copy()
    before = contents(X)
    hasher = small(name).fit(X, y)
    hasher.transform(X)
    for old, new in zip(before, contents(X), strict=True):
        assert np.array_equal(old, new)


@pytest.mark.parametrize("name", ["ssb-vae:paper", "vdsh-s"])
@pytest.mark.parametrize("form", ["csr_matrix", "memory-mapped", "zeros and duplicates"])
def test_targets_agree(name: str, form: str, tmp_path: Path) -> None:
    X = rows(0.5, True)
    for density in (0.05, 0.6):
        target = rows(density, False)
        expected = small(name).fit(X, y, target=target).logits(X)
        other = FORMS[form](target, tmp_path)
        assert np.array_equal(small(name).fit(X, y, target=other).logits(X), expected)


entries = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(-3, 3)), max_size=40)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries, st.sampled_from(["coo", "csr", "csc", "lil", "dok", "bsr"]))
def test_canonical_form(found: Any, form: str) -> None:
    places = tuple(np.array([one[axis] for one in found], int) for axis in (0, 1))
    values = np.array([one[2] for one in found], np.float32)
    matrix = sp.coo_matrix((values, places), (5, 7))
    csr = canonical(matrix.asformat(form))
    assert np.array_equal(csr.toarray(), matrix.toarray())
    assert csr.nnz == np.count_nonzero(matrix.toarray())
    assert all((np.diff(csr.indices[slice(*pair)]) > 0).all() for pair in pairwise(csr.indptr))
    everything = np.arange(5)
    for sparse in (False, True):
        batches = [row_source(x, sparse).take(everything) for x in (csr, csr.toarray())]
        assert torch.equal(*(x if isinstance(x, torch.Tensor) else x.dense() for x in batches))


def broken(**parts: Any) -> Any:
    X = sp.csr_matrix(rows(0.3, False))
    for name, value in parts.items():
        setattr(X, name, value)
    return X


def large(X: Any) -> Any:
    return np.where(X.max() == X, 1e300, X.astype(np.float64))


REFUSED = {
    "beyond float32": large,
    "NaN": lambda X: np.where(X.max() == X, np.nan, X),
    "sparse beyond float32": lambda X: sp.csr_matrix(large(X)),
    "parts whose sum is beyond float32": lambda X: duplicates_csr(X / X.max() * np.float64(6e38)),
    "masked": lambda X: np.ma.masked_equal(X, X.max()),
    "column out of range": lambda X: broken(indices=np.full(sp.csr_matrix(X).nnz, 99, np.int32)),
    "complex": lambda X: X + 1j,
    "three dimensions": lambda X: torch.from_numpy(X)[None].to_sparse(),
}


@pytest.mark.parametrize("name", ["ssb-vae", "phs-gs", "bernoulli-vae", "itq"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_word_in_fit_and_in_transform(name: str, case: str) -> None:
    X = rows(0.3, False)
    bad = REFUSED[case](X)
    fitted = small(name).fit(X, y)
    for use in (lambda: small(name).fit(bad, y), lambda: fitted.transform(bad)):
        with pytest.raises(ValueError, match=r"X|Complex"):
            use()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_memory_mapped_values_are_checked_as_they_are_used(dtype: str, tmp_path: Path) -> None:
    X = rows(0.5, True).astype(dtype)
    fitted = small("ssb-vae").fit(X, y)
    X[7, 2] = np.inf if dtype == "f4" else 1e300
    bad = memory_mapped(dtype)(X, tmp_path)
    for use in (lambda: small("ssb-vae").fit(bad, y), lambda: fitted.logits(bad)):
        with pytest.raises(ValueError, match="too large for float32 in row 7"):
            use()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("unit", [1e-40, 1e-38, 1e-20, 1e17, 1e19, 1e30])
def test_what_is_fitted_is_finite_or_refused(name: str, unit: float) -> None:
    X = rows(1, False).astype(np.float64) * unit
    try:
        logits = small(name).fit(X, y).logits(X)
    except (ValueError, RuntimeError) as error:
        assert any(word in str(error) for word in ("scale", "Scale", "multiply", "loss"))  # noqa: PT017
    else:
        assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("unit", [1e-42, 1e-30, 1e30, 1e37])
def test_sparse_rows_and_rows_that_are_alike_raise_no_warning(name: str, unit: float) -> None:
    """pytest turns warnings into errors."""
    for X in (sp.csr_matrix(rows(0.08, False) * unit), np.ones((N_ITEMS, N_FEATURES), "f4")):
        try:
            logits = small(name).fit(X, y).logits(X)
        except (ValueError, RuntimeError) as error:
            assert any(word in str(error) for word in ("scale", "Scale", "multiply", "loss"))  # noqa: PT017
        else:
            assert np.isfinite(logits).all()


def test_a_nullable_frame_is_read(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    X = rows(0.5, False)
    expected = small("ssb-vae").fit(X, y).logits(X)
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(N_FEATURES)])
    for other in (
        frame,
        frame.astype("Float32"),
        pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(X), columns=frame.columns),
    ):
        assert np.array_equal(small("ssb-vae").fit(other, y).logits(other), expected)
    with pytest.raises(ValueError, match="NaN"):
        small("ssb-vae").fit(frame.astype("Float32").replace(X[0, 0], pd.NA), y)


def test_as_matrix_copies_nothing_that_is_in_order() -> None:
    X = rows(0.3, False)
    assert as_matrix(X, "X") is X
    csr = sp.csr_matrix(X)
    assert np.shares_memory(as_matrix(csr, "X").data, csr.data)
