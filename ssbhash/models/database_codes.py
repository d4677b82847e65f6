"""Codes of a database that step back where their items are doubtful.

A code that knows its class sits on the codeword of the class, whether the classifier was
certain or guessed, and a query there meets both alike. In the codes of a database each bit
gives up its commoner value where it is least certain, so that a query meets certain items
first. How often is asked of the model itself, without any label: docs/decisions.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssbhash.codes import pack
from ssbhash.hamming import search

Floats = npt.NDArray[np.float32]

# Bits give up to so many times the share of items that the classifier expects to be wrong: it
# is over-confident.
MOST_TIMES = 5
# Of the items of a bit's commoner value; half of them leave a bit that says nothing.
MOST_SHARE = 0.5
# Items that stand for queries, and how deep they search.
N_QUERIES, DEPTH = 500, 100


def database_threshold(logits: Floats, probabilities: Floats) -> Floats:
    """Thresholds [n_bits] of database codes: bit = logit > threshold.

    The most hedging that the classifier does not expect to lose precision by, beyond the standard
    error: it underestimates the gain, as it is over-confident, but it knows where classes are
    so small, or so many for the bits, that every item is wanted where it is.

    Parameters
    ----------
    logits
        Of the items [n, n_bits].
    probabilities
        Of their classes [n, n_classes].
    """
    n = len(logits)
    queries = np.arange(min(n, N_QUERIES)) * n // min(n, N_QUERIES)
    query_codes = pack(logits[queries] > 0)

    def expected(threshold: Floats) -> npt.NDArray[np.float64]:
        """Precision that the classifier expects of each query."""
        ids = search(pack(logits > threshold), query_codes, min(n, DEPTH)).ids
        pairs = zip(ids, queries, strict=True)
        return np.array(
            [(probabilities[found] @ probabilities[query]).mean() for found, query in pairs]
        )

    none = np.zeros(logits.shape[1], np.float32)
    before, once = expected(none), doubt(probabilities)
    shares = {min(times * once, MOST_SHARE) for times in range(1, MOST_TIMES + 1)}
    for share in sorted(shares, reverse=True):
        threshold = hedged_threshold(logits, share)
        gain = expected(threshold) - before
        if gain.mean() >= -gain.std() / np.sqrt(len(gain)):
            return threshold
    return none


def doubt(probabilities: Floats) -> float:
    """Share of the predictions that a classifier expects to be wrong."""
    return float((1 - probabilities.max(1)).mean())


def hedged_threshold(logits: Floats, share: float) -> Floats:
    """Thresholds [n_bits] by which bits give up their commoner value.

    In each bit those of the commoner value that are least certain of it, this share of them,
    get the rarer one.
    """
    n = len(logits)
    n_ones = (logits > 0).sum(0)
    sign = np.where(2 * n_ones > n, np.float32(1), np.float32(-1))
    n_rarer = np.minimum(n_ones, n - n_ones)
    rank = n_rarer + ((n - n_rarer) * share).astype(np.int64)
    certainty = np.sort(logits * sign, axis=0)
    threshold: Floats = sign * np.take_along_axis(certainty, rank[None], 0)[0]
    # Where none is moved, exactly the sign of the logit.
    return np.where(rank > n_rarer, threshold, np.float32(0))
