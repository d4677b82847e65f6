"""Named splits of real data, read from files with known checksums.

A `Dataset` has the items of the database, which a method also trains on; the queries, which
it never sees in training; and the order in which labels are hidden. A name always means the
same items, because the checksums of files are checked. Nothing is downloaded unasked.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ssbhash.data import encode_labels, files, is_labelled

CHECKSUMS = {
    "20news.jsonl.gz": "d6ba1a46319d2e688ce86b09c8c7f031ba8c91098755a39e2bfa03d34f904993",
    "cifar10_features256.npz": "66c050ba45d2c91267ae34543c14532b5e87ba35fbd71c58369cd2bde0364870",
    "snippets.jsonl.gz": "73f1a10f11ed2a2ae7deb9056183b85732a1a5403a0d269bd70c306fedfb54ec",
    "snippets_minilm384.npz": "698eef5a0367280057ea72d14209c0742f7245862b6d75e1bce5c33b0f6a37df",
    "stackoverflow_titles.jsonl.gz": (
        "b1f0b5751e7ad0a149f485e70d6901f892bce07ff36735e113aad3828158b562"
    ),
    "tmc.npz": "98fb40c01cd7459b3f67ccd594e3fb2bd8c120bc3e1df127da9d7f3d65238706",
    "snippets/X_total_input.npz": (
        "f8064e9189db8d497a3c9e4f02b2706445cf83714d1297a820c677646a4247a4"
    ),
    "snippets/X_total_target.npz": (
        "7ba8d468314ae68f559f3edab1adff764acfae326c385a1e5deedc2bcb23912f"
    ),
    "snippets/X_test_input.npz": "91163de3893e0787460d9608ee9164a7fe979c5066be481721c61df8f0933960",
    "snippets/labels.npz": "0d4810e021ca936e936a7fe0a79e008112666b333d72bcd3444fa6ad1f830da2",
}


@dataclass(frozen=True)
class Dataset:
    """A database to train on and search in, and queries that are unseen in training.

    Parameters
    ----------
    name : str
        The name that it was loaded by.
    X, X_query : float32 [n, n_features] and [n_queries, n_features]
        Dense, or scipy CSR.
    y, y_query : int64 [n] or uint8 [n, n_labels]
        Class ids, or an indicator matrix (multi-label).
    class_names : tuple of str
        Names of the classes, or their numbers if they have no names.
    target : CSR float32 [n, n_targets], optional
        What a decoder reconstructs, in rows of sum 1; None if that is `X`.
    parts : tuple of int
        Sizes of consecutive parts of the database, such as training and validation items.
        Labels are hidden in each part by itself. One part by default.
    orders : dict of int to tuple of int arrays
        For some seeds, the order in which labels are hidden, for each part. Other seeds draw
        their orders.
    source : str
        What the features were made from.
    """

    name: str
    X: Any
    y: npt.NDArray[Any]
    X_query: Any
    y_query: npt.NDArray[Any]
    class_names: tuple[str, ...]
    target: Any = None
    parts: tuple[int, ...] = ()
    orders: dict[int, tuple[npt.NDArray[np.int32], ...]] = field(default_factory=dict)
    source: str = ""

    def labelled(self, supervision: float, seed: int) -> npt.NDArray[np.int64]:
        """Choose the items that keep their label at a level of supervision.

        These are floor(supervision * n) items of each part, but at least one. For one seed a
        lower level keeps a subset of what a higher level keeps.
        """
        if not 0 < supervision <= 1:
            raise ValueError(f"supervision must be in (0, 1], got {supervision}")
        parts = self.parts or (len(self.y),)
        rng = np.random.default_rng(seed)
        orders = self.orders.get(seed) or [rng.permutation(size) for size in parts]
        starts = np.cumsum((0, *parts[:-1]))
        # 1e-9: 0.29 * 100 is 28.999999999999996.
        kept = [order[: max(1, int(supervision * len(order) + 1e-9))] for order in orders]
        return np.concatenate([k.astype(np.int64) + s for k, s in zip(kept, starts, strict=True)])

    def hide_labels(self, supervision: float, seed: int) -> npt.NDArray[np.int64]:
        """Hide labels for `fit` by -1 (multi-label: rows of -1), the same for every method.

        Examples
        --------
        >>> import numpy as np
        >>> X, y = np.zeros((4, 2), np.float32), np.array([0, 1, 1, 0])
        >>> data = Dataset("tiny", X, y, X, y, ("a", "b"))
        >>> int((data.hide_labels(0.5, seed=0) >= 0).sum())
        2
        """
        hidden = np.full(self.y.shape, -1, np.int64)
        kept = self.labelled(supervision, seed)
        hidden[kept] = self.y[kept]
        return hidden


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    reference_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """Load a named split.

    Parameters
    ----------
    name : {"snippets", "snippets_minilm", "stackoverflow", "20news", "tmc", "cifar10"}, or a path
        - snippets: Search Snippets (Phan et al. 2008), log(1 + tf) of 10,000 terms; the
          features of the paper's code if `reference_dir` has them.
        - snippets_minilm: the same texts as 384-d MiniLM sentence embeddings.
        - stackoverflow: titles of programming questions (Xu et al. 2015), tf-idf of 10,000
          terms.
        - 20news: 20 Newsgroups, bydate, tf-idf of 10,000 terms.
        - tmc: TMC 2007, presence of 500 terms, 22 labels (multi-label).
        - cifar10: 256-d features of images. 1,000 test images, 100 of each class, are
          queries; all other images are the database.
        - a path that ends in `.npz`: your own data, `X` and labels `y`, with `X_query` and
          `y_query`. Without these a tenth of the items, drawn once, are queries.
    data_dir : path, optional
        The folder with the data files; by default SSBHASH_DATA.
    reference_dir : path, optional
        The folder with `snippets/` features; by default `reference` beside
        `data_dir`, if there is one.
    download : bool
        Let scikit-learn fetch 20 Newsgroups if its file is missing.

    Returns
    -------
    Dataset
        The split.

    Raises
    ------
    ValueError
        If the name is unknown, or a file's checksum is wrong.
    FileNotFoundError
        If the folder or a file in it is missing.
    """
    check_name(name)
    if is_own(name):
        return _own(Path(name))
    given = data_dir or os.environ.get("SSBHASH_DATA")
    if not given and not (download and name == "20news"):
        raise FileNotFoundError("no data folder: give data_dir (--data) or set SSBHASH_DATA")
    folder = Path(given or ".")
    reference = Path(reference_dir) if reference_dir else folder.resolve().parent / "reference"
    return LOADERS[name](_Source(folder, reference, download))


def is_own(name: str) -> bool:
    """Whether a name is the path of a user's own data."""
    return name.endswith(".npz")


def check_name(name: str) -> None:
    """Check that a name means a data set.

    Raises
    ------
    ValueError
        If it does not; the message lists the known names.
    """
    if name not in LOADERS and not (is_own(name) and Path(name).is_file()):
        known = ", ".join(LOADERS)
        raise ValueError(f"dataset must be one of {known}, or your own .npz file; got {name!r}")


def source_of_own(path: Path) -> str:
    """Name a file by its content, so that results of other content are told apart."""
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _own(path: Path) -> Dataset:
    arrays = files.read_arrays(path)
    if {"X", "y", "X_query", "y_query"} <= arrays.keys():
        X, y, X_query, y_query = (arrays[name] for name in ("X", "y", "X_query", "y_query"))
    else:
        items = files.read_items(path)
        if items.labels is None:
            raise ValueError(f"{path} has no labels 'y'; it holds {sorted(arrays)}")
        is_query = np.zeros(len(items), bool)
        n_queries = max(1, len(items) // 10)
        is_query[np.random.default_rng(0).permutation(len(items))[:n_queries]] = True
        labels = np.asarray(items.labels)
        X, X_query = items.features[~is_query], items.features[is_query]
        y, y_query = labels[~is_query], labels[is_query]
    (first, second), classes = encode_labels(y, y_query)
    if not (is_labelled(first).all() and is_labelled(second).all()):
        raise ValueError(f"{path}: every item needs a label; the grid hides them itself")
    if classes:
        names = tuple(map(str, classes))
    else:
        names = tuple(map(str, range(first.shape[1] if first.ndim == 2 else first.max() + 1)))
    sides = [side.astype(np.float32) for side in (X, X_query)]
    return Dataset(path.stem, sides[0], first, sides[1], second, names, source=source_of_own(path))


@dataclass(frozen=True)
class _Source:
    data_dir: Path
    reference_dir: Path
    download: bool

    def path(self, name: str) -> Path:
        """Return the path of a file after checking its checksum."""
        folder = self.reference_dir if "/" in name else self.data_dir
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != CHECKSUMS[name]:
            raise ValueError(
                f"{path} is not the file that this name means: its SHA-256 is {digest}, "
                f"expected {CHECKSUMS[name]}"
            )
        return path


def _snippets(source: _Source) -> Dataset:
    if not (source.reference_dir / "snippets").is_dir():
        train, test = _texts(source, "snippets.jsonl.gz")
        # Close to the reference's features, not equal: it lemmatises.
        counts, query_counts = _counts(train, test, ngram_range=(1, 3))
        inputs = counts.log1p(), query_counts.log1p()
        return _text_dataset("snippets", train, test, inputs, counts, "log(1 + tf), built here")
    with np.load(source.path("snippets/labels.npz")) as file:
        labels = dict(file)
    X, target, X_query = (
        sp.load_npz(source.path(f"snippets/X_{part}.npz")).astype(np.float32)
        for part in ("total_input", "total_target", "test_input")
    )
    seeds = [int(key.split("_")[-1]) for key in labels if key.startswith("order_train_")]
    return Dataset(
        name="snippets",
        X=X,
        y=labels["y_total"],
        X_query=X_query,
        y_query=labels["y_test"],
        class_names=tuple(labels["class_names"].tolist()),
        target=target,
        parts=(int(labels["n_train"]), int(labels["n_val"])),
        orders={s: (labels[f"order_train_{s}"], labels[f"order_val_{s}"]) for s in seeds},
        source="log(1 + tf), the features of the paper's code",
    )


def _snippets_minilm(source: _Source) -> Dataset:
    train, test = _texts(source, "snippets.jsonl.gz")
    with np.load(source.path("snippets_minilm384.npz")) as file:
        embeddings = file["E"].astype(np.float32)
    inputs = embeddings[: len(train)], embeddings[len(train) :]
    return _text_dataset("snippets_minilm", train, test, inputs, None, "MiniLM embeddings")


def _stackoverflow(source: _Source) -> Dataset:
    return _tf_idf_dataset(
        "stackoverflow", *_texts(source, "stackoverflow_titles.jsonl.gz"), min_df=2
    )


def _20news(source: _Source) -> Dataset:
    if source.download and not (source.data_dir / "20news.jsonl.gz").is_file():
        train, test = _fetch_20news()
    else:
        train, test = _texts(source, "20news.jsonl.gz")
    return _tf_idf_dataset("20news", train, test, max_df=0.8, min_df=3)


def _tf_idf_dataset(name: str, train: _Texts, test: _Texts, **options: Any) -> Dataset:
    from sklearn.feature_extraction.text import TfidfTransformer

    counts, query_counts = _counts(train, test, **options)
    weighting = TfidfTransformer().fit(counts)
    inputs = tuple(weighting.transform(c) for c in (counts, query_counts))
    return _text_dataset(name, train, test, inputs, counts, "tf-idf")


def _tmc(source: _Source) -> Dataset:
    with np.load(source.path("tmc.npz")) as file:
        ones = np.ones(len(file["indices"]), np.float32)
        presence = sp.csr_matrix(
            (ones, file["indices"], file["indptr"]), shape=tuple(file["shape"])
        )
        labels, is_train = file["Y"], file["is_train"]
    return Dataset(
        name="tmc",
        X=presence[is_train],
        y=labels[is_train],
        X_query=presence[~is_train],
        y_query=labels[~is_train],
        class_names=tuple(map(str, range(labels.shape[1]))),
        target=_rows_of_sum_1(presence[is_train]),
        source="presence of terms",
    )


def _cifar10(source: _Source) -> Dataset:
    with np.load(source.path("cifar10_features256.npz")) as file:
        features, labels = file["F"].astype(np.float32), file["y"].astype(np.int64)
        is_train, class_names = file["is_train"], tuple(file["classes"].tolist())
    rng = np.random.default_rng(0)
    of_class = (np.flatnonzero(~is_train & (labels == c)) for c in range(len(class_names)))
    queries = np.sort(np.concatenate([rng.choice(ids, 100, replace=False) for ids in of_class]))
    is_query = np.zeros(len(labels), bool)
    is_query[queries] = True
    return Dataset(
        name="cifar10",
        X=features[~is_query],
        y=labels[~is_query],
        X_query=features[is_query],
        y_query=labels[is_query],
        class_names=class_names,
        source="EfficientNet-Lite2 features, 256 principal components",
    )


LOADERS: dict[str, Callable[[_Source], Dataset]] = {
    "snippets": _snippets,
    "snippets_minilm": _snippets_minilm,
    "stackoverflow": _stackoverflow,
    "20news": _20news,
    "tmc": _tmc,
    "cifar10": _cifar10,
}

_Texts = list[dict[str, Any]]


def _texts(source: _Source, name: str) -> tuple[_Texts, _Texts]:
    with gzip.open(source.path(name), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    return train, test


def _fetch_20news() -> tuple[_Texts, _Texts]:
    from sklearn.datasets import fetch_20newsgroups

    parts = []
    for subset in ("train", "test"):
        found = fetch_20newsgroups(subset=subset, shuffle=False)
        names = [found.target_names[label] for label in found.target]
        rows = zip(found.data, found.target, names, strict=True)
        parts.append([{"text": t, "label": int(label), "class": c} for t, label, c in rows])
    return parts[0], parts[1]


def _counts(train: _Texts, test: _Texts, **options: Any) -> tuple[Any, Any]:
    """Count the 10,000 most frequent terms, chosen on the training texts."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(
        stop_words="english", max_features=10_000, dtype=np.float32, **options
    )
    counts = vectorizer.fit_transform(row["text"] for row in train)
    return counts, vectorizer.transform(row["text"] for row in test)


def _text_dataset(
    name: str, train: _Texts, test: _Texts, inputs: Any, counts: Any, source: str
) -> Dataset:
    names = {row["label"]: row.get("class", str(row["label"])) for row in train}
    return Dataset(
        name=name,
        X=inputs[0],
        y=np.array([row["label"] for row in train], np.int64),
        X_query=inputs[1],
        y_query=np.array([row["label"] for row in test], np.int64),
        class_names=tuple(names[label] for label in sorted(names)),
        target=None if counts is None else _rows_of_sum_1(counts),
        source=source,
    )


def _rows_of_sum_1(counts: Any) -> Any:
    """Divide rows by their sums; a row without terms stays zero."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(1 / np.maximum(totals, 1)) @ counts, dtype=np.float32)
