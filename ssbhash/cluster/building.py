"""Puts files into a sharded index: encodes in parallel, and can be resumed."""

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
    """List data files: those given, and all in given folders and below them.

    Parameters
    ----------
    sources : paths
        Files or folders.

    Returns
    -------
    list of path
        In the order of `sources`; those of a folder sorted.

    Raises
    ------
    FileNotFoundError
        If a source does not exist, or a folder holds no data file.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "b.npy").touch(), (folder / "a.csv").touch()
    (None, None)
    >>> [path.name for path in data_files([folder])]
    ['a.csv', 'b.npy']
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
    """Tell the number of bits of the codes of data files.

    Parameters
    ----------
    first : path
        One of the files.
    model : path or None
        The model that encodes them; None if they hold codes.

    Returns
    -------
    int
        Bits in a code.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "codes.npy")
    >>> np.save(path, np.zeros((3, 2), np.uint8))
    >>> n_bits_of(path, None)
    16
    """
    return files.read_codes(first)[1] if model is None else int(_pipeline(model).hasher.n_bits)


def build(
    index: ShardedIndex,
    paths: Iterable[Path],
    *,
    model: Path | None = None,
    fields: dict[str, Any] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> int:
    """Put files into an index; files that it has already are skipped.

    Ray tasks read and encode the files, each on one CPU. Codes are put into the index in the
    order of the files. The index's folder lists the finished files, so that an interrupted
    build goes on.

    Parameters
    ----------
    index : ShardedIndex
        Where the codes go.
    paths : paths
        Data files, readable under these names on every node. Without a model, files of codes.
    model : path, optional
        A model that encodes the items, readable under this name on every node.
    fields : dict, optional
        Names of fields, as in `ssbhash.data.read_items`. The values of a field `id` become the
        ids, integers; by default items are numbered on.
    tell : callable, optional
        Called with a line for each file.

    Returns
    -------
    int
        Number of items that were added.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or does not fit; the files before it are in the index.
    """
    ray = index.ray
    done: dict[str, int] = {}
    with suppress(FileNotFoundError):
        done = json.loads((index.path / _DONE).read_bytes())
    encode = ray.remote(_encode).options(num_cpus=1)
    model = None if model is None else model.absolute()
    absolute = dict.fromkeys(path.absolute() for path in paths)  # a file may be named twice
    wanted = [path for path in absolute if str(path) not in done]
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
