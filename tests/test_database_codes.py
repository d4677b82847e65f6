"""Codes of a database: which bits step back, and where none should."""

import numpy as np
import pytest

from ssbhash import metrics, pack
from ssbhash.models.database_codes import Floats, database_threshold, doubt, hedged_threshold


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_least_certain_of_the_commoner_bits_are_hedged(n: int, share: float) -> None:
    logits = np.random.default_rng(0).normal([-3, -0.5, 0, 0.5, 3], 1, (n, 5)).astype(np.float32)
    before, after = logits > 0, logits > hedged_threshold(logits, share)
    for bit in range(5):
        common = 2 * before[:, bit].sum() > n
        is_common, moved = before[:, bit] == common, before[:, bit] != after[:, bit]
        certainty = np.abs(logits[:, bit])
        assert not (moved & ~is_common).any()
        assert abs(moved.sum() - share * is_common.sum()) <= 1
        kept = certainty[is_common & ~moved]
        assert certainty[moved].max(initial=0) <= kept.min(initial=np.inf)


def test_doubt_is_the_share_of_expected_mistakes() -> None:
    p = np.array([[0.5, 0.25, 0.25], [1, 0, 0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], np.float32)
    assert doubt(p) == pytest.approx((0.5 + 0 + 0.2 + 0.6) / 4)


def items(n_classes: int, n_each: int, n_bits: int) -> tuple[Floats, Floats, Floats]:
    """Logits and class probabilities of items, a third of them in doubt; and their classes.

    An item of doubtful class sits on the codeword of its likeliest class, less firmly.
    """
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2, (n_classes, n_bits)) * 2.0 - 1
    classes = np.repeat(np.arange(n_classes), n_each)
    certainty = np.where(rng.random(len(classes)) < 1 / 3, 0.5, 0.99)
    guess = np.where(rng.random(len(classes)) < certainty, classes, rng.permutation(classes))
    logits = words[guess] * (6 * certainty[:, None]) + rng.normal(0, 1, (len(classes), n_bits))
    p = np.tile((1 - certainty)[:, None] / (n_classes - 1), (1, n_classes))
    p[np.arange(len(classes)), guess] = certainty
    return logits.astype(np.float32), p.astype(np.float32), classes


def precision(logits: Floats, threshold: Floats, classes: Floats) -> float:
    queries, database = pack(logits[::7] > 0), pack(logits > threshold)
    return float(metrics.precision_at(database, classes, queries, classes[::7], 100))


def test_a_query_meets_certain_items_first() -> None:
    logits, p, classes = items(n_classes=4, n_each=500, n_bits=16)
    threshold = database_threshold(logits, p)
    assert threshold.shape == (16,)
    gain = precision(logits, threshold, classes) - precision(logits, 0 * threshold, classes)
    assert gain > 0.02


def test_nothing_steps_back_where_every_item_is_wanted() -> None:
    logits, p, classes = items(n_classes=60, n_each=60, n_bits=10)
    most = hedged_threshold(logits, min(5 * doubt(p), 0.5))
    assert precision(logits, most, classes) < precision(logits, 0 * most, classes) - 0.02
    np.testing.assert_array_equal(database_threshold(logits, p), 0)


@pytest.mark.parametrize("n", [1, 3])
def test_few_items_are_enough(n: int) -> None:
    logits, p, _ = items(n_classes=2, n_each=2, n_bits=8)
    assert np.isfinite(database_threshold(logits[:n], p[:n])).all()
