"""Damaged files: every reader gives a right answer or one ValueError that names the file.

    pytest tests/test_damaged.py --damaged 100000 --damage-seed 1

A crash, another error, a warning, or a changed file of ours that is accepted, is a failure.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sparse = pytest.importorskip("scipy.sparse")
torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
from pyarrow import parquet

from ssbhash import SSBVAE
from ssbhash.data import Items, TextFeatures
from ssbhash.data.files import read_codes, read_items, read_labels, write_codes
from ssbhash.models import Pipeline, load
from ssbhash.training import checkpoint
from ssbhash.tuning.journal import Journal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12) % 3
FEW: dict[str, Any] = {"n_bits": 8, "n_epochs": 1, "n_hidden_units": 4, "verbose": False}


@dataclass
class Reader:
    """A file, how to read it, and whether a change of it must be told."""

    path: Path
    read: Callable[[Path], Any]
    has_checksum: bool = False


def sound(items: Any) -> None:
    """Check that what was read is consistent, and safe for the code that takes it."""
    if isinstance(items, Items):
        assert items.labels is None or len(items.labels) == len(items)
        if sparse.issparse(items.features):
            items.features.check_format(full_check=True)
            assert items.features.shape[0] < 2**28
            items.features.sum()
        elif items.features is not None:
            assert items.features.ndim == 2
            assert items.features.dtype.kind in "biuf"
            with np.errstate(all="ignore"):
                items.features[:2000].astype(np.float64).sum()
        else:
            assert all(isinstance(text, str) for text in items.texts or [])


def readers(folder: Path) -> list[Reader]:
    """Write one sound file of each kind."""
    made = []

    def add(name: str, read: Callable[[Path], Any], has_checksum: bool = False) -> Path:
        made.append(Reader(folder / name, read, has_checksum))
        return folder / name

    np.save(add("x.npy", read_items), X)
    np.save(add("y.npy", read_labels), Y)
    np.savez(add("x.npz", read_items), X=X, y=Y)
    np.savez_compressed(add("y.npz", read_labels), X=X, y=np.array(["ant", "bee"] * 6))
    matrix = sparse.random_array((12, 8), density=0.3, format="csr", rng=RNG)
    for kind in ("csr", "csc", "coo", "dia"):
        path = add(f"{kind}.npz", read_items)
        sparse.save_npz(path, matrix.asformat(kind), compressed=kind == "csc")
    sparse.save_npz(add("bsr.npz", read_items), sparse.bsr_array(matrix, blocksize=(2, 2)))
    rows = [{"text": f"tea {n}", "label": ["a", "b"][n % 2], "v": [n, 0.5]} for n in range(12)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    add("t.jsonl", read_items).write_bytes(lines)
    add("v.ndjson", lambda path: read_items(path, vector="v")).write_bytes(lines)
    add("t.jsonl.gz", read_items).write_bytes(gzip.compress(lines))
    table = "id,text,label\n" + "".join(f'{n},"tea, {n}",{n % 3}\n' for n in range(12))
    add("t.csv", lambda path: read_items(path, id="id")).write_text(table)
    add("t.csv.gz", read_labels).write_bytes(gzip.compress(table.encode()))
    add("x.tsv", read_items).write_text("a\tb\tlabel\n" + "1\t2.5\tant\n" * 12)
    parquet.write_table(
        pa.table({"text": ["tea", "ant"] * 6, "label": Y}), add("t.parquet", read_items)
    )
    parquet.write_table(pa.table({"X": X.tolist()}), add("v.parquet", read_items))
    numbers = {name: X[:, column] for column, name in enumerate("abcde")}
    parquet.write_table(pa.table(numbers), add("x.parquet", read_items), compression="gzip")
    write_codes(add("c.npy", read_codes, True), RNG.integers(0, 16, (20, 2), np.uint8), 12)
    items = Items(texts=["ball goal", "oven soup"] * 10, labels=["a", "b"] * 10)
    Pipeline(SSBVAE(**FEW), TextFeatures(min_df=1)).fit(items).save(folder / "model")
    for path in sorted((folder / "model").iterdir()):
        add(f"model/{path.name}", lambda path: load(path.parent), True)
    checkpoint.write(folder / "state", {"epoch": 1}, {"w": torch.ones(20, 3)})
    add("state/checkpoint.safetensors", lambda path: checkpoint.read(path.parent), True)
    path = add("trials.log", lambda path: Journal(path).read_logs(0), True)
    Journal(path).append_logs([{"op_code": number, "study_id": 0} for number in range(9)])
    return made


def damaged(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Flip bits, cut, repeat, overwrite, or mix with another file."""
    kind = chance.randrange(8)
    place = chance.randrange(len(content) + 1)
    if chance.random() < 0.5:  # headers are where it hurts
        place = min(place, chance.randrange(128))
    if kind < 3:
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 8])):
            near = min(len(content) - 1, chance.randrange(place + 1))
            changed[near] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if kind == 3:
        return content[:place]
    if kind == 4:
        word = chance.choice(
            [b"\xff" * 8, b"\0" * 8, b"9" * 19, b"-1", b"[" * 100_000, b'"', b"\n"]
        )
        return content[:place] + word + content[place + chance.choice([0, len(word)]) :]
    if kind == 5:
        end = chance.randrange(place, len(content) + 1)
        return content[:place] + content[place:end] * 2 + content[end:]
    if kind == 6:
        return content[:place] + chance.choice(others)[place:]
    numbers = [b"9223372036854775807", b"18446744073709551616", b"1e999", b"0", b"-5", b"True"]
    digits = [at for at, byte in enumerate(content[:4096]) if 48 <= byte < 58]
    if not digits:
        return content[:-1]
    at = chance.choice(digits)
    return content[:at] + chance.choice(numbers) + content[at + 1 :]


def with_right_sums(content: bytes) -> bytes:
    """Give the stored members of a damaged zip their right CRC-32: damage goes deeper."""
    changed, at = bytearray(content), 0
    sums = {}
    while (at := changed.find(b"PK\x03\x04", at)) >= 0:
        size = int.from_bytes(changed[at + 18 : at + 22], "little")
        start = at + 30 + int.from_bytes(changed[at + 26 : at + 28], "little")
        start += int.from_bytes(changed[at + 28 : at + 30], "little")
        if changed[at + 8 : at + 10] == b"\0\0" and size < len(changed):
            sums[at] = zlib.crc32(changed[start : start + size]).to_bytes(4, "little")
            changed[at + 14 : at + 18] = sums[at]
        at += 4
    at = 0
    while (at := changed.find(b"PK\x01\x02", at)) >= 0:
        local = int.from_bytes(changed[at + 42 : at + 46], "little")
        if local in sums:
            changed[at + 16 : at + 20] = sums[local]
        at += 4
    return bytes(changed)


def test_damaged_files_are_told(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    chance = random.Random(request.config.getoption("--damage-seed"))
    made = readers(tmp_path)
    contents = {reader.path: reader.path.read_bytes() for reader in made}
    originals = {reader.path: reader.read(reader.path) for reader in made}
    for found in originals.values():
        sound(found)
    originals[tmp_path / "c.npy"] = np.array(originals[tmp_path / "c.npy"][0]), 12
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_refused = 0
    for number in range(request.config.getoption("--damaged")):
        reader = made[number % len(made)]
        content = contents[reader.path]
        changed = damaged(content, list(contents.values()), chance)
        if reader.path.suffix == ".npz" and chance.random() < 0.7:
            changed = with_right_sums(changed)
        reader.path.write_bytes(changed)
        found, refused = None, None
        try:
            found = reader.read(reader.path)
        except ValueError as error:
            refused = str(error)
        except BaseException:
            (tmp_path / "found").write_bytes(changed)
            print(f"number {number}: {reader.path}, kept in {tmp_path / 'found'}")
            raise
        if refused is not None:
            n_refused += 1
            named = str(reader.path.parent if reader.has_checksum else reader.path)
            assert named in refused, (reader.path, refused)
            assert "\n" not in refused
        elif reader.path.name == "trials.log":  # a last line that was cut off is dropped
            assert found == originals[reader.path][: len(found)]
        elif reader.path.name == "checkpoint.safetensors":  # blanks in a header say nothing
            assert found[0] == {"epoch": 1}
            assert found[1].keys() == {"w"}
            assert torch.equal(found[1]["w"], torch.ones(20, 3))
        elif reader.path.name == "c.npy":
            assert np.array_equal(found[0], originals[reader.path][0])
            assert found[1] == originals[reader.path][1]
        else:
            assert not reader.has_checksum or changed == content, reader.path
            sound(found)
        reader.path.write_bytes(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    assert grown < 1 << 20, f"{grown:,} KiB were taken for files of a few"
    assert n_refused
