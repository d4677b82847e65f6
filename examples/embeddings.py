"""Embeddings with few labels -> binary codes -> exact search.

    python examples/embeddings.py [EMBEDDINGS.npz]

The file holds X [n, D] and class ids y [n]. Without one, the hand-written digits of
scikit-learn stand in: 40 principal components of each image, like the output of a
network. Only 10% of the labels are used for training.
"""

import sys

import numpy as np

import ssbhash
from ssbhash.data.files import read_items
from ssbhash.data.named_labels import hide_labels
from ssbhash.metrics import evaluate


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Read the file named on the command line, or make some."""
    if len(sys.argv) > 1:
        items = read_items(sys.argv[1])
        return items.features, items.labels
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    pixels, y = load_digits(return_X_y=True)
    return PCA(40, whiten=False, random_state=0).fit_transform(pixels), y


X, y = embeddings()
order = np.random.default_rng(0).permutation(len(X))
query, database = order[:200], order[200:]
few = hide_labels(y[database], supervision=0.1, seed=0)

hasher = ssbhash.SSBVAE(n_bits=32).fit(X[database], few)
codes = hasher.transform(X[database])  # uint8 [n, 4]: 4 bytes an item
queries = hasher.transform(X[query])

distances, ids = ssbhash.search(codes, queries, k=5)
for row in range(3):
    found = ", ".join(
        f"{y[database][i]} ({d} bits)" for i, d in zip(ids[row], distances[row], strict=True)
    )
    print(f"class {y[query[row]]}: nearest are {found}")
print(f"{(few >= 0).sum()} labels, {codes.nbytes:,} bytes of codes for {X[database].nbytes:,}")
print(evaluate(codes, y[database], queries, y[query], k=100))
