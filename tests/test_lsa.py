"""The projection of sparse features."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import TruncatedSVD

from ssbhash.inputs import fit_lsa, row_source
from ssbhash.inputs.lsa import principal_directions


def word_counts(n=600, n_terms=400, n_topics=30, seed=0):
    """Counts of words drawn from topics of sloping frequency."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(n_terms, 0.05), n_topics)
    mixtures = rng.dirichlet(0.3 / np.arange(1, n_topics + 1), n)
    return scipy.sparse.csr_matrix(rng.poisson(20 * mixtures @ topics).astype(np.float32))


def test_held_out_variance_is_that_of_sklearn():
    counts = word_counts()
    train, held_out = counts[:500], counts[500:]
    ours = principal_directions(train, 40, seed=0)
    theirs = TruncatedSVD(40, random_state=0).fit(train).components_.T
    assert np.allclose(ours.T @ ours, np.eye(40), atol=1e-5)
    kept, wanted = (np.square(held_out @ directions).sum() for directions in (ours, theirs))
    assert kept > 0.99 * wanted


@pytest.mark.parametrize("shape", [(3, 50), (50, 3)])
def test_fewer_rows_or_columns_than_wanted(shape):
    counts = word_counts(*shape)
    assert fit_lsa(row_source(counts), 10, 0).n_columns == 3


def test_equal_rows_leave_finite_directions():
    counts = scipy.sparse.csr_matrix(np.tile(np.arange(5, dtype=np.float32), (20, 1)))
    directions = principal_directions(counts, 3, seed=0)
    assert np.isfinite(directions).all()
    assert np.allclose(np.abs(directions[:, 0]), np.arange(5) / np.sqrt(30), atol=1e-3)
    empty = principal_directions(counts * 0, 3, seed=0)
    assert np.isfinite(empty).all()


@pytest.mark.parametrize("seed", range(3))
def test_few_texts_with_words_in_common(seed):
    rng = np.random.default_rng(seed)
    kinds = (rng.random((12, 40)) < 0.2).astype(np.float32)
    counts = scipy.sparse.csr_matrix(kinds[rng.integers(0, 12, 45)])
    directions = principal_directions(counts, 40, seed=0)
    assert np.isfinite(directions).all()
    dense = counts.toarray().T
    within = directions @ np.linalg.lstsq(directions, dense, rcond=1e-4)[0]
    assert np.allclose(within, dense, atol=1e-3), "12 directions hold all of them"
