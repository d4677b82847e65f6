"""The commands about an index over several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ssbhash.atomic import replacing
from ssbhash.cli.options import IdField, Json, ModelOption, TextField, VectorField
from ssbhash.cli.output import note, report
from ssbhash.data import files

cluster = typer.Typer(
    no_args_is_help=True,
    help="Keep an index on several machines, with Ray. RAY_ADDRESS names a running cluster; "
    "without it Ray is started on this machine.",
)

Folder = Annotated[Path, typer.Argument(help="The index: a folder, the same on every node.")]
Timeout = Annotated[float, typer.Option(help="Seconds that a search or change may take.", min=0.1)]


def _open(folder: Path, timeout: float, **shape: Any) -> Any:
    from ssbhash.cluster import ShardedIndex

    return ShardedIndex.open(folder, timeout_s=timeout, **shape)


@cluster.command()
def build(
    folder: Folder,
    sources: Annotated[list[Path], typer.Argument(help="Data files, or folders of them.")],
    model: ModelOption = None,
    shards: Annotated[int | None, typer.Option(help="Shards of a new index.", min=1)] = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas of each shard.", min=1)] = None,
    text_field: TextField = "text",
    id_field: IdField = None,
    vector_field: VectorField = None,
    timeout: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Put files into an index: codes, or items with --model, encoded in parallel.

    Files that are in the index already are skipped, so an interrupted build goes on when it is
    started again. The ids are numbers: those of --id-field, or counted in the order of the
    files.
    """
    from ssbhash import cluster as room

    paths = room.data_files(sources)
    n_bits = room.n_bits_of(paths[0], model)
    with _open(folder, timeout, n_bits=n_bits, n_shards=shards, n_replicas=replicas) as index:
        fields = {"text": text_field, "id": id_field, "vector": vector_field}
        n_added = room.build(
            index, paths, model=model, fields=fields, tell=lambda line: note(line, as_json)
        )
        found = {"index": str(folder), "files": len(paths), "added": n_added, "items": len(index)}
        report({**found, "bits": n_bits, "shards": index.n_shards}, as_json)


@cluster.command()
def search(
    folder: Folder,
    queries: Annotated[Path, typer.Argument(help="Codes: .npy, uint8 [n, n_bytes].")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where results go: .npz.")],
    k: Annotated[int, typer.Option("-k", help="Neighbours for each query.", min=1)] = 10,
    timeout: Timeout = 600.0,
) -> None:
    """Find the nearest codes of each query: arrays `distances` and `ids`."""
    codes, n_bits = files.read_codes(queries)
    with _open(folder, timeout) as index:
        if n_bits != index.n_bits:
            raise ValueError(f"{queries} holds codes of {n_bits} bits, the index of {index.n_bits}")
        found = index.search(codes, k)
    with replacing(out) as file:
        np.savez(file, distances=found.distances, ids=found.ids)


@cluster.command()
def stats(folder: Folder, timeout: Timeout = 60.0, as_json: Json = False) -> None:
    """Count items and bytes; tell which replicas serve."""
    with _open(folder, timeout) as index:
        report(index.stats(), as_json)


@cluster.command()
def rebalance(
    folder: Folder,
    shards: Annotated[int, typer.Option(help="Shards from now on.", min=1)],
    timeout: Timeout = 600.0,
) -> None:
    """Spread the items over another number of shards."""
    with _open(folder, timeout) as index:
        index.rebalance(shards)
