"""The commands about an index in a folder, and about near-duplicates among codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ssbhash import HammingIndex, groups_within, pairs_within
from ssbhash.arrays import Codes
from ssbhash.atomic import replacing
from ssbhash.cli.output import progress_bar
from ssbhash.data import files

index = typer.Typer(
    no_args_is_help=True, help="Keep codes in a folder: add, remove, search, survive."
)

Folder = Annotated[Path, typer.Argument(help="The index: a folder.")]
CodesFile = Annotated[Path, typer.Argument(help="Codes: .npy, uint8 [n, n_bytes].")]
IdsFile = Annotated[Path | None, typer.Option("--ids", help="Ids: .npy, integers [n].")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where results go: .npz.")]
Radius = Annotated[int, typer.Option("--radius", "-r", help="Bits apart at most.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def _ids(path: Path | None) -> Any:
    return None if path is None else files.read_labels(path)


def _fitting(path: Path, opened: HammingIndex) -> Codes:
    codes, n_bits = files.read_codes(path)
    if n_bits != opened.n_bits:
        raise ValueError(f"{path} holds codes of {n_bits} bits, the index of {opened.n_bits}")
    return codes


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


@index.command()
def build(folder: Folder, codes: CodesFile, ids: IdsFile = None) -> None:
    """Make an index of codes; FOLDER must not hold one yet."""
    rows, n_bits = files.read_codes(codes)
    made = HammingIndex(n_bits)
    made.add(rows, ids=_ids(ids))
    made.save(folder)


@index.command()
def add(folder: Folder, codes: CodesFile, ids: IdsFile = None) -> None:
    """Add codes to an index."""
    with HammingIndex.open(folder, "a") as opened:
        opened.add(_fitting(codes, opened), ids=_ids(ids))
        opened.commit()


@index.command()
def remove(
    folder: Folder, ids: Annotated[Path, typer.Argument(help="Ids: .npy, integers [n].")]
) -> None:
    """Remove items by their ids."""
    with HammingIndex.open(folder, "a") as opened:
        try:
            opened.remove(_ids(ids))
        except KeyError as error:
            raise ValueError(f"{ids}: {error.args[0]}") from error
        opened.commit()


@index.command()
def search(
    folder: Folder,
    queries: CodesFile,
    out: Out,
    k: Annotated[int, typer.Option("-k", help="Neighbours for each query.", min=1)] = 10,
    max_distance: Annotated[
        int | None, typer.Option(help="Bits apart at most; missing ones get id -1.", min=0)
    ] = None,
) -> None:
    """Find the nearest codes of each query: arrays `distances` and `ids`."""
    opened = HammingIndex.open(folder)
    found = opened.search(_fitting(queries, opened), k, max_distance=max_distance)
    ids = found.ids if found.ids.dtype != object else found.ids.astype(str)
    with replacing(out) as file:
        np.savez(file, distances=found.distances, ids=ids)


@index.command()
def stats(folder: Folder, as_json: Json = False) -> None:
    """Count items, bytes and segments."""
    _tell(HammingIndex.open(folder).stats(), as_json)


@index.command()
def verify(folder: Folder) -> None:
    """Check every byte against its checksum."""
    HammingIndex.open(folder).verify()
    print(f"{folder} is whole")


@index.command()
def compact(folder: Folder) -> None:
    """Merge all segments and drop what was removed."""
    with HammingIndex.open(folder, "a") as opened:
        opened.compact()


def pairs(codes: CodesFile, radius: Radius, out: Out, as_json: Json = False) -> None:
    """Find all pairs of near-duplicates: arrays `first`, `second` and `distances`."""
    rows, n_bits = files.read_codes(codes)
    with progress_bar("pairs") as progress:
        found = pairs_within(rows, radius, n_bits=n_bits, progress=progress)
    with replacing(out) as file:
        np.savez(file, first=found.first, second=found.second, distances=found.distances)
    _tell({"codes": len(rows), "pairs": len(found.first)}, as_json)


def groups(codes: CodesFile, radius: Radius, out: Out, as_json: Json = False) -> None:
    """Group near-duplicates: array `groups`, the smallest row of each code's group."""
    rows, n_bits = files.read_codes(codes)
    with progress_bar("groups") as progress:
        found = groups_within(rows, radius, n_bits=n_bits, progress=progress)
    with replacing(out) as file:
        np.savez(file, groups=found)
    _tell({"codes": len(rows), "groups": len(np.unique(found))}, as_json)
