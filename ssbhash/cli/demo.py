"""The demo: hand-written digits with 10% labels, codes, a million of them, a picture.

The data are the 1,797 digits of 8 x 8 pixels that come with scikit-learn. 300 items, drawn
once, are the queries, which are used for the table alone. The others are the database.
Weights and epochs of each method were chosen on 300 items of the database, held out for
validation (docs/decisions.md), never on the queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssbhash import metrics
from ssbhash.arrays import Codes
from ssbhash.atomic import replacing
from ssbhash.data import files
from ssbhash.index import HammingIndex
from ssbhash.models import BASELINES, METHODS
from ssbhash.paper import Dataset

N_QUERIES = 300
SUPERVISION = 0.1
K = 100
# Of the bits of the million codes: near-duplicates, with the ties and the skew of learned bits.
FLIPPED = 0.03

# Chosen on validation items, for 32 bits and 10% labels.
SETTINGS: dict[str, dict[str, Any]] = {
    "ssb-vae": {},  # its defaults: nothing to choose
    "phs-gs": {"alpha": 1e-5, "gamma": 1e5, "n_epochs": 60},
    "vdsh-s": {"alpha": 1e3, "n_epochs": 60},
}
TITLES = {
    "ssb-vae": "SSB-VAE",
    "phs-gs": "PHS-GS",
    "vdsh-s": "VDSH-S",
    "classifier": "classifier codes",
    "itq": "PCA-ITQ",
    "sign": "sign of features",
    "lsh": "LSH",
}
COLOURS = {"ssb-vae": "#c1121f", "phs-gs": "#e09f3e", "vdsh-s": "#00798c"}
RANKS = [1, 2, 5, *range(10, 151, 10)]


class Trained(NamedTuple):
    """One row of the table."""

    name: str
    hasher: Any
    database: Codes
    queries: Codes
    n_bits: int
    figures: dict[str, float]
    train_seconds: float
    encode_rate: float


def run(
    out: str | Path,
    *,
    n_bits: int = 32,
    n_codes: int = 1_000_000,
    n_epochs: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, measure, search a blown-up database, and write the results to a folder.

    Parameters
    ----------
    out
        Folder for `demo.png`, `report.json`, the model of SSB-VAE, an index of its codes,
        and the digits as `database.npz`, `queries.npz` and pictures for the command line.
    n_bits
        Length of the codes.
    n_codes
        Codes in the database that is searched for speed.
    n_epochs
        Of every method; by default those chosen on validation items.
    seed
        Of hidden labels, training and sampling.
    tell
        Called with each line of the report.

    Returns
    -------
    dict
        The figures of the report.
    """
    started = time.perf_counter()
    out = Path(out)
    data = digits()
    hidden = data.hide_labels(SUPERVISION, seed)
    tell(
        f"{len(data.y) + len(data.y_query):,} hand-written digits: {len(data.y):,} in the "
        f"database, {int((hidden >= 0).sum())} of them with labels; {len(data.y_query)} held-out "
        "queries.\n"
    )
    tell(f"{'method':<18} bits  P@{K}  MAP@{K}  training s     items/s")
    rows = []
    for name in TITLES:
        rows.append(_train(name, data, hidden, n_bits, n_epochs, seed))
        tell(_line(rows[-1]))
    pixels = _pixels(data)
    tell(f"{'pixels, no codes':<18}    -  {pixels[f'P@{K}']:.3f}    {pixels[f'MAP@{K}']:.3f}")
    tell("\n" + _verdict(rows))
    speed = search_speed(rows[0], data, n_codes, seed, tell)

    rows[0].hasher.save(out / "model")
    for part, x, y in (("database", data.X, data.y), ("queries", data.X_query, data.y_query)):
        with replacing(out / f"{part}.npz") as file:
            np.savez(file, X=x, y=y)
    draw(out / "demo.png", rows, data)
    index = out / f"index-{n_bits}"
    with HammingIndex.open(index, "a", n_bits=n_bits) as opened:
        opened.update(rows[0].database, ids=np.arange(len(data.y)))
    draw_each(out / "pictures", data)
    report = {
        "methods": [
            {"method": row.name, "bits": row.n_bits, **row.figures}
            | {"train_seconds": row.train_seconds, "encode_items_per_second": row.encode_rate}
            for row in rows
        ],
        "pixels": pixels,
        "search": speed,
        "seconds": time.perf_counter() - started,
    }
    files.write_json(out / "report.json", report)
    tell(
        f"\n{out}/demo.png has queries with their neighbours; {out}/model is the trained SSB-VAE.\n"
        f"Done in {report['seconds']:.0f} s. Go on with, for example:\n"
        f"  ssbhash evaluate {out}/database.npz {out}/queries.npz --model {out}/model\n"
        f"  ssbhash serve {index} --model {out}/model --items {out}/database.npz "
        f"--thumbnails {out}/pictures"
    )
    return report


def draw_each(folder: Path, data: Dataset) -> None:
    """Draw every digit of the database, for the page of `ssbhash serve`."""
    from matplotlib.image import imsave

    folder.mkdir(exist_ok=True)
    for row, pixels in enumerate(data.X):
        # Not by `replacing`: to sync so many files takes 20 seconds.
        imsave(folder / f"{row}.png", pixels.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)


def digits() -> Dataset:
    """Load the digits and draw the queries: always the same ones, evenly from each class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, y = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32)
    database, queries = train_test_split(
        np.arange(len(y)), test_size=N_QUERIES, stratify=y, random_state=0
    )
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", x[database], y[database], x[queries], y[queries], names)


def search_speed(
    row: Trained, data: Dataset, n_codes: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Copy the database with some bits flipped, and search the copies, beside faiss.

    All engines must return the same distances before any is timed. They take turns, and
    the best time of each is reported.
    """
    from ssbhash import backends, sample, unpack

    n_samples = -(-n_codes // len(data.y))
    bits = unpack(row.hasher.transform(data.X), row.n_bits)
    logits = np.where(bits, 1.0, -1.0) * np.log(1 / FLIPPED - 1)
    codes = sample(logits, seed=seed, n_samples=n_samples).reshape(-1, row.queries.shape[1])
    codes = np.ascontiguousarray(codes[:n_codes])
    labels = np.tile(data.y, n_samples)[:n_codes]
    precision = metrics.precision_at(codes, labels, row.queries, data.y_query, k=K)
    tell(
        f"\n{n_codes:,} codes of {row.n_bits} bits, copies with {FLIPPED:.0%} of the bits flipped: "
        f"P@{K} {precision:.3f}."
    )
    engines = _engines(codes)
    results = {name: search(row.queries) for name, search in engines.items()}
    first = next(iter(results))
    for name, found in results.items():
        if not np.array_equal(found, results[first]):
            raise RuntimeError(f"{name} and {first} disagree on distances")
    batch = _take_turns(engines, row.queries)
    single = _take_turns(engines, row.queries[:1])
    n_queries = len(row.queries)
    tell(f"{'10 nearest':<18} {n_queries} queries at once   one query")
    for name in engines:
        rate = n_queries / batch[name]
        tell(f"{name:<18} {rate:>12,.0f} queries/s {1e3 * single[name]:>8.2f} ms")
    if len(engines) > 1:
        ours, theirs = engines
        tell(
            f"{'ratio':<18} {batch[theirs] / batch[ours]:>12.2f} x         "
            f"{single[theirs] / single[ours]:>8.2f} x   (same distances)"
        )
    else:
        tell("faiss is not installed; pip install 'ssbhash[faiss]' to compare.")
    return {
        "codes": n_codes,
        "engine": backends()[0],
        f"P@{K}": precision,
        "queries_per_second": {name: n_queries / batch[name] for name in engines},
        "seconds_of_one_query": single,
    }


def draw(path: Path, rows: list[Trained], data: Dataset) -> None:
    """Draw queries with their nearest neighbours, and precision by k."""
    from matplotlib.figure import Figure

    # One above the other: readable on a phone too.
    figure = Figure(figsize=(6.6, 11), dpi=110, layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(1.25, 1))
    _draw_neighbours(top, rows[0], data)
    _draw_precision(bottom, rows, data)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _train(
    name: str,
    data: Dataset,
    hidden: npt.NDArray[np.int64],
    n_bits: int,
    n_epochs: int | None,
    seed: int,
) -> Trained:
    if name in METHODS:
        settings = dict(SETTINGS[name])
        if n_epochs is not None:
            settings["n_epochs"] = n_epochs
        hasher: Any = METHODS[name](n_bits=n_bits, seed=seed, verbose=False, **settings)
    else:
        hasher = BASELINES[name](n_bits=n_bits, seed=seed)
    started = time.perf_counter()
    hasher.fit(data.X, hidden)
    train_seconds = time.perf_counter() - started
    database, queries = hasher.transform(data.X), hasher.transform(data.X_query)
    figures = metrics.evaluate(database, data.y, queries, data.y_query, K)
    many = np.tile(data.X, (7, 1))
    encode_seconds = min(_seconds(hasher.transform, many) for _ in range(3))
    rate = len(many) / encode_seconds
    return Trained(name, hasher, database, queries, n_bits, figures, train_seconds, rate)


def _line(row: Trained) -> str:
    figures = f"{row.figures[f'P@{K}']:.3f}    {row.figures[f'MAP@{K}']:.3f}"
    return (
        f"{TITLES[row.name]:<18} {row.n_bits:>4}  {figures}  {row.train_seconds:>10.2f}  "
        f"{row.encode_rate:>10,.0f}"
    )


def _pixels(data: Dataset) -> dict[str, float]:
    """Rank by Euclidean distance of the pixels: no codes, 64 floats an item."""
    squares = (data.X**2).sum(axis=1) - 2 * data.X_query @ data.X.T
    return metrics.evaluate_distances(squares, data.y, data.y_query, K)


def _verdict(rows: list[Trained]) -> str:
    """Say what beats the baselines, and what does not."""
    figures = {row.name: row.figures[f"P@{K}"] for row in rows}
    bar_name = max((name for name in figures if name not in METHODS), key=figures.__getitem__)
    bar = figures[bar_name]
    lines = []
    for name in (name for name in figures if name in METHODS):
        verb = "beats" if figures[name] > bar else "does not beat"
        lines.append(f"{TITLES[name]} {verb} {TITLES[bar_name]} ({figures[name] - bar:+.3f})")
    return f"On P@{K}: " + "; ".join(lines) + "."


def _engines(codes: Codes) -> dict[str, Callable[[Codes], Any]]:
    """Return the engines to compare: from queries to distances of the 10 nearest."""
    from ssbhash import backends, search

    engines: dict[str, Callable[[Codes], Any]] = {
        f"ssbhash {backends()[0]}": lambda queries: search(codes, queries, 10).distances
    }
    try:
        import faiss
    except ModuleNotFoundError:
        return engines
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    engines["faiss"] = lambda queries: index.search(queries, 10)[0]
    return engines


def _take_turns(
    engines: dict[str, Callable[[Codes], Any]], queries: Codes, budget_seconds: float = 2.0
) -> dict[str, float]:
    """Measure the best time of each engine, in turns, for about `seconds` in total."""
    best = dict.fromkeys(engines, float("inf"))
    started = time.perf_counter()
    for _ in range(30):
        for name, search in engines.items():
            best[name] = min(best[name], _seconds(search, queries))
        if time.perf_counter() - started > budget_seconds:
            break
    return best


def _seconds(call: Callable[[Any], Any], argument: Any) -> float:
    started = time.perf_counter()
    call(argument)
    return time.perf_counter() - started


def _draw_neighbours(axes: Any, row: Trained, data: Dataset, n_columns: int = 10) -> None:
    from matplotlib.patches import Rectangle

    from ssbhash import search

    # The first query of each class, so that none is picked by its result, and the worst.
    # Each row tells how many are right.
    chosen = [int(np.flatnonzero(data.y_query == digit)[0]) for digit in range(10)]
    precision = metrics.precision_at(
        row.database, data.y, row.queries, data.y_query, k=n_columns, per_query=True
    )
    chosen.append(int(np.argmin(precision)))
    ids = search(row.database, row.queries[chosen], n_columns).ids
    cell, gap = 10, 4
    canvas = np.zeros((len(chosen) * cell + gap, (n_columns + 1) * cell + gap))
    for line, (query, found) in enumerate(zip(chosen, ids, strict=True)):
        is_worst = line == len(chosen) - 1
        top = line * cell + 1 + gap * is_worst
        n_right = int((data.y[found] == data.y_query[query]).sum())
        words = f"{n_right} of {n_columns}" + (", the worst" if is_worst else "")
        axes.text(canvas.shape[1] + 1, top + 4, words, va="center", fontsize=10)
        canvas[top : top + 8, 1:9] = data.X_query[query].reshape(8, 8)
        for column, item in enumerate(found):
            left = (column + 1) * cell + gap + 1
            canvas[top : top + 8, left : left + 8] = data.X[item].reshape(8, 8)
            is_same = data.y[item] == data.y_query[query]
            # A wrong one is also thicker, for who cannot tell the colours apart.
            style: dict[str, Any] = {"edgecolor": "#2a9d8f", "linewidth": 1.2}
            if not is_same:
                style = {"edgecolor": "#d1495b", "linewidth": 3.0}
            axes.add_patch(Rectangle((left - 1.2, top - 1.2), 9.4, 9.4, fill=False, **style))
    axes.imshow(canvas, cmap="gray_r", interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"The first query of each digit, the worst of all {len(data.y_query)} below,\n"
        f"and the {n_columns} nearest of {len(data.y):,} by {row.n_bits}-bit codes\n"
        "green: same digit; thick red: another",
        fontsize=12,
        loc="left",
    )


def _draw_precision(axes: Any, rows: list[Trained], data: Dataset) -> None:
    from matplotlib.ticker import PercentFormatter

    ends = []
    for row in rows:
        precision = metrics.precision_at(
            row.database, data.y, row.queries, data.y_query, k=RANKS, n_bits=row.n_bits
        )
        is_learned = row.name in METHODS
        colour = COLOURS.get(row.name, "#8a8a8a")
        width = 3.0 if row.name == "ssb-vae" else 1.8
        style = {"color": colour, "linewidth": width, "linestyle": "-" if is_learned else "--"}
        axes.plot(RANKS, precision, **style)
        ends.append((float(precision[-1]), TITLES[row.name], colour))
    low = np.floor(10 * min(ends)[0]) / 10
    above = np.inf
    for end, title, colour in sorted(ends, reverse=True):
        above = min(end, above - 0.036 * (1 - low))  # names do not overlap
        axes.text(RANKS[-1] + 2, above, title, color=colour, va="center", fontsize=10)
    axes.set(xlabel="k", xlim=(0, RANKS[-1]), ylim=(low, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(
        f"Precision of the k nearest: {len(data.y_query)} held-out queries,\n"
        f"{SUPERVISION:.0%} labels; solid: learned codes; dashed: what they must beat",
        fontsize=12,
        loc="left",
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
