"""Write sets of many and of small classes, made from the features of CIFAR-10.

    python bench/class_sets.py FOLDER
    python bench/default.py --dataset FOLDER/*.npz --supervision 0.2 0.5 --out RESULTS

Each class of CIFAR-10 is cut into clusters (k-means), and a cluster is a class: 100 and 1,000
classes of equal size, and 30 classes of 5 to 20 items.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from ssbhash.paper import datasets

# Name, clusters of each of the 10 classes, and least and most items of a cluster to keep.
SETS = (("100_classes", 10, 100, 100), ("1000_classes", 100, 12, 12), ("small_classes", 3, 5, 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    given = os.environ.get("SSBHASH_DATA")
    parser.add_argument("--data", type=Path, default=given, required=not given)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    data = datasets.load("cifar10", options.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, n_clusters, least, most in SETS:
        rng = np.random.default_rng(0)
        items: list[int] = []
        queries: list[int] = []
        classes = np.full(len(data.y), -1)
        for number in np.unique(data.y):
            own = np.flatnonzero(data.y == number)
            means = MiniBatchKMeans(n_clusters, random_state=0, n_init=1).fit(data.X[own])
            for cluster in range(n_clusters):
                members = rng.permutation(own[means.labels_ == cluster])
                n_items = int(rng.integers(least, most + 1))
                n_queries = max(2, n_items // 10)
                if len(members) < n_items + n_queries:  # too small a cluster
                    continue
                classes[members] = number * n_clusters + cluster
                items += members[:n_items].tolist()
                queries += members[n_items : n_items + n_queries].tolist()
        chosen, asked = np.sort(items), np.sort(queries)
        path = options.folder / f"{name}.npz"
        np.savez(
            path, X=data.X[chosen], y=classes[chosen], X_query=data.X[asked], y_query=classes[asked]
        )
        print(
            f"{path}: {len(np.unique(classes[chosen]))} classes, {len(chosen)} items, {len(asked)} queries"
        )


if __name__ == "__main__":
    main()
