"""Whatever fails or is killed while a file is written, the old one or the new one is there."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssbhash.atomic import MANIFEST, read_together, replacing, write_together
from ssbhash.data.files import read_codes, write_codes, write_json

OLD, NEW = {"a.bin": b"old", "b.json": b"[1]"}, {"a.bin": b"new", "c.json": b"[2]"}


def put(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def no_space(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, [1])
    with pytest.raises(TypeError, match="bytes"), replacing(path) as file:
        file.write("half")
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["out.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask()


def test_mode_and_symbolic_links_of_the_target_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "x", tmp_path / "link"
    put(real, b"1")
    real.chmod(0o640)
    link.symlink_to(real)
    put(link, b"2")
    assert link.is_symlink()
    assert real.read_bytes() == b"2"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "y")
    put(dangling, b"3")
    assert (tmp_path / "real" / "y").read_bytes() == b"3"


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        put(tmp_path / "file" / "inside.npy", b"")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        put(tmp_path, b"")
    put(Path(os.devnull), b"a device takes what it is given")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("what", ["os.fdopen", "os.fsync", "os.replace", "os.open"])
def test_an_error_of_the_system_names_the_target(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "x", b"old")
    write_codes(tmp_path / "c.npy", np.zeros((3, 2), np.uint8), 12)
    write_together(tmp_path / "m", OLD)
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(what, no_space)
        for target, write in (
            ("x", lambda: put(tmp_path / "x", b"new")),
            ("c.npy", lambda: write_codes(tmp_path / "c.npy", np.zeros((9, 2), np.uint8), 16)),
            ("m", lambda: write_together(tmp_path / "m", NEW)),
        ):
            with pytest.raises(OSError, match="No space left") as raised:
                write()
            if what != "os.open":  # the folder cannot be opened either
                assert str(tmp_path / target) in str(raised.value.filename)
                assert "part" not in str(raised.value.filename)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "x").read_bytes() == b"old"
    codes, n_bits = read_codes(tmp_path / "c.npy")
    assert (codes.shape, n_bits) == ((3, 2), 12)
    assert read_together(tmp_path / "m") == OLD


def test_the_next_write_removes_what_dead_writers_left(tmp_path: Path) -> None:
    script = (
        "import os, sys; from ssbhash.atomic import replacing\n"
        "with replacing(sys.argv[1]) as file: file.write(b'half'); file.flush(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "x"], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with replacing(tmp_path / "y") as file:  # alive: another writer must not remove it
        put(tmp_path / "z", b"")
        file.write(b"1")
    assert sorted(os.listdir(tmp_path)) == ["y", "z"]


def test_files_together_replace_those_of_the_last_write(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("not ours")
    write_together(tmp_path, OLD)
    (tmp_path / "a.bin").chmod(0o600)
    write_together(tmp_path, NEW)
    assert read_together(tmp_path) == NEW
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "c.json", MANIFEST, "mine.txt"]
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o600


def test_files_of_two_writes_are_never_read_together(tmp_path: Path) -> None:
    for name, contents in (("one", OLD), ("two", NEW)):
        write_together(tmp_path / name, contents)
    for name in ("a.bin", MANIFEST):
        content = (tmp_path / "one" / name).read_bytes()
        (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
        with pytest.raises((ValueError, FileNotFoundError), match=r"a\.bin|c\.json"):
            read_together(tmp_path / "one")
        (tmp_path / "one" / name).write_bytes(content)
    (tmp_path / "one" / "b.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        read_together(tmp_path / "one")


def test_every_changed_byte_of_a_manifest_is_told(tmp_path: Path) -> None:
    write_together(tmp_path, OLD)
    text = (tmp_path / MANIFEST).read_bytes()
    for place in range(len(text)):
        for bit in (1, 32):
            changed = bytes([text[place] ^ bit])
            (tmp_path / MANIFEST).write_bytes(text[:place] + changed + text[place + 1 :])
            with pytest.raises(ValueError, match=r"manifest\.json"):
                read_together(tmp_path)


def test_a_manifest_cannot_point_elsewhere(tmp_path: Path) -> None:
    for name in ("../secret", "/etc/passwd", ".hidden", ""):
        with pytest.raises(ValueError, match="cannot be a file"):
            write_together(tmp_path, {name: b""})


def kinds(folder: Path) -> dict[str, tuple[Callable[[int], None], Callable[[], object]]]:
    """Ways to save state 0 or 1, and to read back which one is there."""
    torch, optuna = pytest.importorskip("torch"), pytest.importorskip("optuna")
    from ssbhash import SSBVAE
    from ssbhash.data import Items, TextFeatures
    from ssbhash.models import Pipeline, load
    from ssbhash.training import checkpoint
    from ssbhash.tuning.study import open_study, quiet

    few: dict[str, Any] = {"n_bits": 8, "n_epochs": 1, "n_hidden_units": 8, "verbose": False}
    texts = Items(texts=["ball goal", "oven soup"] * 10, labels=["a", "b"] * 10)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    models = [
        Pipeline(SSBVAE(**few), TextFeatures(min_df=1)).fit(texts),
        Pipeline(SSBVAE(**few)).fit(Items(features=x, labels=np.arange(20) % 2)),
    ]
    codes = [np.zeros((900, 2), np.uint8), np.ones((5000, 2), np.uint8)]
    bits = [12, 16]

    def which_model() -> int:
        found = load(folder / "model")
        state = 0 if isinstance(found, Pipeline) else 1
        queries: Any = texts.texts if state == 0 else x
        expected = models[state].encode(texts if state == 0 else Items(features=x))
        assert np.array_equal(found.transform(queries), expected)
        return state

    def which_codes() -> int:
        found, n_bits = read_codes(folder / "c.npy")
        state = bits.index(n_bits)
        assert np.array_equal(found, codes[state])
        return state

    def save_checkpoint(state: int) -> None:
        tensors = {"w": torch.full((200 + state, 50), float(state))}
        checkpoint.write(folder / "state", {"epoch": state}, tensors)

    def which_checkpoint() -> int:
        found = checkpoint.read(folder / "state")
        assert found is not None
        about, tensors = found
        assert torch.equal(tensors["w"], torch.full((200 + about["epoch"], 50), about["epoch"]))
        return int(about["epoch"])

    def study() -> Any:
        with quiet(optuna):
            return open_study(optuna, folder / "trials.log", "codes", "the same search")

    def finished() -> list[Any]:
        return study().get_trials(states=[optuna.trial.TrialState.COMPLETE])

    n_told = 0

    def save_trial(state: int) -> None:
        """Begin and end a trial whose value is the state."""
        opened = study()
        trial = opened.ask({"dropout": optuna.distributions.FloatDistribution(0, 1)})
        opened.tell(trial, state)

    def which_trial() -> int:
        nonlocal n_told
        values = [int(trial.value) for trial in finished()]
        assert len(values) >= n_told, "a trial that was there is lost"
        n_told = len(values)
        if n_told > 100:  # each opening reads them all
            (folder / "trials.log").unlink()
            save_trial(values[-1])
            n_told = 1
        return values[-1]

    return {
        "study": (save_trial, which_trial),
        "file": (
            lambda state: write_json(folder / "x.json", [state] * (1 + 9999 * state)),
            lambda: set(json.loads((folder / "x.json").read_text())).pop(),
        ),
        "codes": (
            lambda state: write_codes(folder / "c.npy", codes[state], bits[state]),
            which_codes,
        ),
        "model": (lambda state: models[state].save(folder / "model"), which_model),
        "checkpoint": (save_checkpoint, which_checkpoint),
    }


def test_kills_during_saves_lose_and_mix_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(0)
    for kind, (save, read) in kinds(tmp_path).items():
        save(0)
        seen = set()
        for _ in range(request.config.getoption("--kills")):
            child = os.fork()
            if child == 0:
                while True:
                    save(1)
                    save(0)
            time.sleep(chance.random() * 0.02)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen.add(read())
        assert seen <= {0, 1}, kind
        save(1)
        assert read() == 1
    rests = [path.name for path in tmp_path.rglob(".*")]
    assert not rests, "the next write removes what the killed ones left"
