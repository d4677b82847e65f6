"""Files into a sharded index: encoded in parallel, and resumable."""

from __future__ import annotations

import functools
import json
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ssbhash.arrays import Codes
from ssbhash.atomic import replacing
from ssbhash.cluster.hashing import Ids
from ssbhash.cluster.sharded_index import ShardedIndex
from ssbhash.data import files

_DONE = "built.json"


def data_files(sources: Iterable[Path]) -> list[Path]:
    """List data files: those given, and those in folders, sorted, with all below them.

    Raises
    ------
    FileNotFoundError
        If a source does not exist, or a folder holds no data file.
    """
    found: list[Path] = []
    for source in sources:
        inside = [source]
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if files.is_data_file(path))
        if not inside or not inside[0].exists():
            raise FileNotFoundError(
                2, f"is no data file or folder of them ({files.FORMATS})", str(source)
            )
        found += inside
    return found


def n_bits_of(first: Path, model: Path | None) -> int:
    """Return the bits of the codes that files will give."""
    return files.read_codes(first)[1] if model is None else int(_pipeline(model).hasher.n_bits)


def build(
    index: ShardedIndex,
    paths: Iterable[Path],
    *,
    model: Path | None = None,
    fields: dict[str, Any] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> int:
    """Put files into an index; those that are there already are skipped.

    Files are read and encoded by Ray tasks, each on one CPU, and put into the index in their
    order. Which are done is written down in the index's folder, so that a build that was
    interrupted goes on.

    Parameters
    ----------
    index : ShardedIndex
        Where the codes go.
    paths : paths
        Data files, readable under these names on every node. Without a model, codes.
    model : path, optional
        A model that encodes the items, readable under this name on every node.
    fields : dict, optional
        Names of fields, as `ssbhash.data.read_items` takes them. The values of a field `id`
        become the ids, integers; by default items are numbered on.
    tell : callable, optional
        Called with a line for each file.

    Returns
    -------
    int
        Items that were added.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or does not fit; those before it are in the index.
    """
    ray = index.ray
    done: dict[str, int] = {}
    with suppress(FileNotFoundError):
        done = json.loads((index.path / _DONE).read_bytes())
    encode = ray.remote(_encode).options(num_cpus=1)
    model = None if model is None else model.absolute()
    wanted = [path.absolute() for path in paths if str(path.absolute()) not in done]
    under_way: deque[tuple[Path, Any]] = deque()
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    rest = iter(wanted)
    n_added = 0
    while True:
        for path in rest:
            under_way.append((path, encode.remote(path, model, fields or {})))
            if len(under_way) == most:
                break
        if not under_way:
            return n_added
        path, task = under_way.popleft()
        try:
            codes, n_bits, ids = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        if n_bits != index.n_bits:
            raise ValueError(f"{path} gives codes of {n_bits} bits, the index has {index.n_bits}")
        if ids is None:
            # Files are put in one by one, so a repeated one gets the ids that it had.
            first = sum(done.values())
            ids = np.arange(first, first + len(codes))
        index.update(codes, ids)
        done[str(path)] = len(codes)
        with replacing(index.path / _DONE) as file:
            file.write(json.dumps(done).encode())
        n_added += len(codes)
        tell(f"{path}: {len(codes):,}")


def _encode(
    path: Path, model: Path | None, fields: dict[str, Any]
) -> tuple[Codes, int, Ids | None]:
    """Read a file, and encode it; runs in a task."""
    if model is None:
        if path.suffix != ".npy":
            raise ValueError(f"{path} holds no codes (.npy): give a model that encodes it")
        codes, n_bits = files.read_codes(path)
        return np.array(codes), n_bits, None
    items = files.read_items(path, **fields)
    pipeline = _pipeline(model)
    ids = None
    if items.ids is not None:
        try:
            ids = np.array([int(one) for one in items.ids], np.int64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: ids must be integers, got {error}") from error
    return pipeline.encode(items), int(pipeline.hasher.n_bits), ids


@functools.lru_cache(maxsize=1)
def _pipeline(model: Path) -> Any:
    from ssbhash.models import Pipeline

    return Pipeline.load(model)
