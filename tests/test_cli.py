"""The command line: round trips through every kind of file, and one line for every error."""

import csv
import fcntl
import gzip
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssbhash
from ssbhash import metrics
from ssbhash.data.files import read_codes, write_codes
from ssbhash.registry import METHODS

pytest.importorskip("typer")
pytest.importorskip("torch")
from scipy import sparse
from typer.testing import CliRunner

from ssbhash.cli.app import application

RNG = np.random.default_rng(0)
N, N_QUERIES = 90, 12
TOPICS = {
    "drink": ["green", "tea", "black", "coffee", "water", "cup", "milk"],
    "insect": ["red", "ants", "bees", "wings", "hive", "honey", "legs"],
    "stone": ["granite", "marble", "slate", "quarry", "chisel", "block", "dust"],
}


def call(*args: object, status: int = 0) -> str:
    result = CliRunner().invoke(application, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.stderr


def one_line(*args: object) -> str:
    """Run what must fail: status 2 and one line."""
    message = call(*args, status=2)
    assert message.startswith("ssbhash: error: ")
    assert message.count("\n") == 1, message
    return message


def items(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw three clusters of non-negative features."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.poisson(0.3, (n, 9)).astype(np.float32)
    x[np.arange(n)[:, None], 3 * y[:, None] + np.arange(3)] += 5
    return x, y


def write_texts(path: Path, n: int, seed: int, n_labelled: int) -> Path:
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    rows = []
    for number in range(n):
        name = names[number % 3]
        row: dict[str, Any] = {"text": " ".join(rng.choice(TOPICS[name], 6))}
        if number < n_labelled:
            row["label"] = name
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows))
    return path


def write_features(path: Path, n: int, seed: int) -> Path:
    """Write items in the format of the suffix; `.csr.npz` is sparse."""
    x, y = items(n, seed)
    if path.suffix == ".npy":
        np.save(path, x)
        np.save(path.with_suffix(".labels.npy"), y)
    elif path.name.endswith(".csr.npz"):
        m = sparse.csr_array(x)
        parts = {"data": m.data, "indices": m.indices, "indptr": m.indptr}
        np.savez(path, format=b"csr", shape=m.shape, y=y, **parts)
    else:
        np.savez(path, X=x, y=y)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with items, a model of 12 bits, codes and labels."""
    folder = tmp_path_factory.mktemp("trained")
    write_features(folder / "x.npz", N, 0)
    write_features(folder / "q.npz", N_QUERIES, 1)
    train = ["train", folder / "x.npz", "--out", folder / "model"]
    call(*train, "--bits", 12, "--epochs", 3, "-q", "--supervision", 0.5)
    for name in "xq":
        call("encode", folder / "model", folder / f"{name}.npz", "-o", folder / f"{name}.npy")
        np.save(folder / f"{name}.labels.npy", items(N if name == "x" else N_QUERIES, 0)[1])
    return folder


@pytest.mark.parametrize("suffix", [".npz", ".csr.npz", ".npy", ".jsonl"])
def test_train_encode_search_evaluate(tmp_path: Path, suffix: str) -> None:
    database, queries, model = tmp_path / f"x{suffix}", tmp_path / f"q{suffix}", tmp_path / "m"
    labels: list[object] = []
    both: list[object] = []
    if suffix == ".jsonl":
        write_texts(database, N, 0, n_labelled=N)
        write_texts(queries, N_QUERIES, 1, n_labelled=N_QUERIES)
    else:
        write_features(database, N, 0)
        write_features(queries, N_QUERIES, 1)
    if suffix == ".npy":
        labels = ["--labels", tmp_path / "x.labels.npy"]
        both = [*labels, "--query-labels", tmp_path / "q.labels.npy"]
    report = json.loads(
        call("train", database, "-o", model, *labels, "--bits", 16, "--epochs", 5, "-q", "--json")
    )
    assert report["items"] == report["labelled"] == N
    assert report["epochs"] == 5
    call("encode", model, database, "-o", database.with_suffix(".codes.npy"))
    call("encode", model, queries, "-o", queries.with_suffix(".codes.npy"))
    codes, n_bits = read_codes(database.with_suffix(".codes.npy"))
    assert codes.shape == (N, 2)
    assert n_bits == 16

    from_items = json.loads(call("evaluate", database, queries, "--model", model, "--json", *both))
    assert from_items["queries"] == N_QUERIES
    assert from_items["MAP@100"] > 0.5, "chance is 0.33"
    if both:
        files = [path.with_suffix(".codes.npy") for path in (database, queries)]
        assert json.loads(call("evaluate", *files, "--json", *both)) == from_items
    neighbours = call("search", database.with_suffix(".codes.npy"), queries, "--model", model)
    assert len(neighbours.splitlines()) == N_QUERIES


def test_text_model_on_new_texts(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_texts(tmp_path / "t.jsonl", N, 0, n_labelled=9)
    report = json.loads(
        call("train", tmp_path / "t.jsonl", "-o", model, "--epochs", 2, "-q", "--json")
    )
    assert report["labelled"] == 9
    assert json.loads((model / "classes.json").read_text()) == ["drink", "insect", "stone"]
    new = [{"text": "nothing known"}, {"text": ""}, {"text": "tea & honey 茶"}]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, new)))
    call("encode", model, tmp_path / "new.jsonl", "-o", tmp_path / "new.npy")
    codes, _ = read_codes(tmp_path / "new.npy")
    assert codes.shape == (3, 4)
    np.testing.assert_array_equal(codes[0], codes[1], "both have no known word")


def test_multi_label_texts_and_method_without_labels(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "t.jsonl", N, 0, n_labelled=0)
    call("train", path, "-o", tmp_path / "a", "--method", "bernoulli-vae", "--epochs", 1, "-q")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number in range(30):
        rows[number]["topics"] = ["all", list(TOPICS)[number % 3]]
    path.write_text("\n".join(map(json.dumps, rows)))
    train = ["train", path, "-o", tmp_path / "b", "--label-field", "topics", "--epochs", 1]
    report = json.loads(call(*train, "-q", "--json"))
    assert report["labelled"] == 30
    assert json.loads((tmp_path / "b" / "classes.json").read_text())[0] == "all"


def test_parameters_and_checkpoint(trained: Path, tmp_path: Path) -> None:
    train = ["train", trained / "x.npz", "-q", "--checkpoint", tmp_path / "state"]
    train += [
        "--set",
        "n_hidden_units=20",
        "--set",
        "contrast_weight=0.01",
        "--set",
        "monitor=val_loss",
    ]
    call(*train, "-o", tmp_path / "a", "--epochs", 2)
    call(*train, "-o", tmp_path / "b", "--epochs", 4)
    saved = json.loads((tmp_path / "b" / "config.json").read_text())
    assert saved["parameters"]["contrast_weight"] == 0.01
    assert saved["parameters"]["n_hidden_units"] == 20
    assert [row["epoch"] for row in saved["history"]] == [1, 2, 3, 4]
    first = json.loads((tmp_path / "a" / "config.json").read_text())["history"]
    assert saved["history"][:2] == first, "it went on from the state, seconds and all"


def test_codes_of_twelve_bits(trained: Path) -> None:
    codes, n_bits = read_codes(trained / "x.npy")
    assert n_bits == 12
    assert codes.shape == (N, 2)


def test_search_gives_what_the_library_gives(trained: Path, tmp_path: Path, backend: str) -> None:
    codes, queries = read_codes(trained / "x.npy")[0], read_codes(trained / "q.npy")[0]
    expected = ssbhash.search(codes, queries, 3)
    search = ["search", trained / "x.npy", trained / "q.npy", "-k", 3, "--backend", backend]
    plain = [line.split() for line in call(*search).splitlines()]
    assert [int(line[0]) for line in plain] == list(range(N_QUERIES))
    pairs = [[tuple(map(int, pair.split(":"))) for pair in line[1:]] for line in plain]
    assert [[one for one, _ in line] for line in pairs] == expected.ids.tolist()
    assert [[d for _, d in line] for line in pairs] == expected.distances.tolist()
    rows = [json.loads(line) for line in call(*search, "--json").splitlines()]
    assert [row["ids"] for row in rows] == expected.ids.tolist()
    call(*search, "-o", tmp_path / "n.jsonl")
    written = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert written == rows
    call(*search, "-o", tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz") as archive:
        np.testing.assert_array_equal(archive["ids"], expected.ids)
        np.testing.assert_array_equal(archive["distances"], expected.distances)


def test_search_within_a_radius(trained: Path, tmp_path: Path) -> None:
    codes, queries = read_codes(trained / "x.npy")[0], read_codes(trained / "q.npy")[0]
    lims, _, ids = ssbhash.within(codes, queries, 2)
    search = ["search", trained / "x.npy", trained / "q.npy", "--radius", 2]
    rows = [json.loads(line) for line in call(*search, "--json").splitlines()]
    assert [row["ids"] for row in rows] == [ids[a:b].tolist() for a, b in pairwise(lims)]
    call(*search, "-o", tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz") as archive:
        np.testing.assert_array_equal(archive["lims"], lims)


def test_evaluate_codes_and_labels(trained: Path) -> None:
    evaluate = ["evaluate", trained / "x.npy", trained / "q.npy"]
    evaluate += ["--labels", trained / "x.labels.npy", "--query-labels", trained / "q.npz"]
    report = json.loads(call(*evaluate, "-k", 5, "-k", 20, "--json"))
    expected = metrics.evaluate(
        read_codes(trained / "x.npy")[0],
        np.load(trained / "x.labels.npy"),
        read_codes(trained / "q.npy")[0],
        items(N_QUERIES, 1)[1],
        [5, 20],
    )
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, abs=1e-6)
    by_id = json.loads(call(*evaluate, "-k", 5, "--ties", "id", "--json"))
    of_ties = {"P@5 expected", "distinct", "tied@5"}
    assert set(by_id) == {"bits", "items", "queries", "P@5", "R@5", "MAP@5"} | of_ties
    assert by_id["P@5"] == report["P@5 searched"]
    assert by_id["P@5 expected"] == report["P@5"]
    assert "MAP@100" in call(*evaluate)


def test_info() -> None:
    described = json.loads(call("info", "--json"))
    assert described["version"] == ssbhash.__version__
    assert described["engines"] == list(ssbhash.backends())
    assert ssbhash.__version__ in call("info")


def test_a_missing_command_shows_help() -> None:
    assert "Commands:" in call()


def test_every_method_can_be_trained() -> None:
    assert f"[{'|'.join(METHODS)}]" in call("train", "--help")
    assert "'phs' is not one of ssb-vae, phs-gs" in one_line(
        "train", "x.npy", "-o", "m", "--method", "phs"
    )


def test_bad_usage() -> None:
    assert "Did you mean 'train'" in one_line("trainn")
    assert "data" in one_line("train", "-o", "m").lower()
    assert "'--bits'" in one_line("train", "x.npy", "-o", "m", "--bits", 0)
    assert "No such file" in one_line("train", "absent.npy", "-o", "m")


def test_bad_training_data(tmp_path: Path) -> None:
    x, y = items(N, 0)
    path, model = tmp_path / "x.npz", tmp_path / "m"

    def message(*options: object, **arrays: np.ndarray) -> str:
        np.savez(path, **{"X": x, "y": y, **arrays})
        return one_line("train", path, "-o", model, "-q", *options)

    assert "NaN" in message(X=np.where(np.arange(9) == 4, np.nan, x))
    assert "infinity" in message(X=np.where(np.arange(9) == 4, np.inf, x))
    assert "-1" in message(y=np.full(N, -1))
    assert "class" in message(y=np.zeros(N, int))
    assert "90 items but labels [5]" in message(y=y[:5])
    assert "supervision" in message("--supervision", 2)
    assert "gamma is no parameter of vdsh" in message("--method", "vdsh", "--set", "gamma=1")
    assert "alpha must be a number" in message("--set", "alpha=much")
    assert "seed is no parameter" in message("--set", "seed=1")
    assert "device" in message("--device", "no-such-device")
    np.save(tmp_path / "x.npy", x)
    assert "y" in one_line("train", tmp_path / "x.npy", "-o", model, "-q")
    assert "no term is left" in one_line(
        "train", write_texts(tmp_path / "t.jsonl", 3, 0, 3), "-o", model, "--min-df", 50
    )
    assert not (model / "weights.safetensors").exists()


def test_bad_models(trained: Path, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "c.npy"]
    assert "No such file" in one_line("encode", tmp_path / "none", trained / "x.npz", *out)
    texts = write_texts(tmp_path / "t.jsonl", 4, 0, 0)
    assert "trained on features" in one_line("encode", trained / "model", texts, *out)
    np.save(tmp_path / "narrow.npy", np.ones((3, 4), np.float32))
    assert "9 features" in one_line("encode", trained / "model", tmp_path / "narrow.npy", *out)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (trained / "model").iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert str(broken) in one_line("encode", broken, trained / "x.npz", *out)
    assert not (tmp_path / "c.npy").exists()


def test_bad_search(trained: Path, tmp_path: Path) -> None:
    x, q = trained / "x.npy", trained / "q.npy"
    assert "'--k'" in one_line("search", x, q, "-k", 0)
    assert "backend" in one_line("search", x, q, "--backend", "cray")
    assert "--out must be .npz, .jsonl or .csv" in one_line("search", x, q, "-o", "n.txt")
    write_codes(tmp_path / "wide.npy", np.zeros((3, 3), np.uint8), 24)
    assert "24 bits" in one_line("search", x, tmp_path / "wide.npy")
    np.save(tmp_path / "floats.npy", np.zeros((3, 2)))
    assert "not codes uint8" in one_line("search", x, tmp_path / "floats.npy")
    (tmp_path / "short.npy").write_bytes(x.read_bytes()[:-8])
    assert "truncated or foreign" in one_line("search", tmp_path / "short.npy", q)
    write_codes(tmp_path / "empty.npy", np.zeros((0, 2), np.uint8), 12)
    lines = call("search", tmp_path / "empty.npy", q).split()
    assert lines == [str(number) for number in range(N_QUERIES)], "nobody is near"
    far = json.loads(call("search", x, q, "-k", 1000, "--json").splitlines()[0])
    assert len(far["ids"]) == N, "k beyond n gives all"


def test_bad_evaluation(trained: Path, tmp_path: Path) -> None:
    x, q = trained / "x.npy", trained / "q.npy"
    assert "x.npy has no labels: give --labels FILE" in one_line("evaluate", x, q)
    labels = ["--labels", trained / "x.labels.npy"]
    assert "--query-labels" in one_line("evaluate", x, q, *labels)
    wrong = ["--query-labels", trained / "x.labels.npy"]
    assert "labels" in one_line("evaluate", x, q, *labels, *wrong)


def test_unwritable_folder(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one_line("train", trained / "x.npz", "-o", tmp_path / "file", "-q")
    inside = tmp_path / "file" / "c.npy"
    assert "Not a directory" in one_line(
        "encode", trained / "model", trained / "x.npz", "-o", inside
    )


def start(*args: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ssbhash", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, **options)


def test_process_with_bad_input_and_in_a_pipe(trained: Path, tmp_path: Path) -> None:
    process = start("search", "absent.npy", "absent.npy", stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err.decode() == "ssbhash: error: absent.npy: No such file or directory\n"
    # Enough epochs not to be told that the network learned too little.
    train = ["train", trained / "x.npz", "-o", tmp_path / "m", "--epochs", 20]
    process = start(*train, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b""), "no progress bar in a pipe"
    assert b"epochs" in out


def read_until(terminal: int, wanted: bytes, seconds: float = 60) -> bytes:
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], shown
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # the process has closed its side
            pytest.fail(f"{wanted!r} not shown, but {shown!r}")
    return shown


def test_ctrl_c_keeps_the_last_finished_epoch(trained: Path, tmp_path: Path) -> None:
    terminal, stderr = pty.openpty()  # on a terminal there is a progress bar
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    train = ["train", trained / "x.npz", "-o", tmp_path / "m", "--epochs", 10**6]
    process = start(*train, stderr=stderr)
    os.close(stderr)
    try:
        shown = read_until(terminal, b"epoch=")
        process.send_signal(signal.SIGINT)
        shown += read_until(terminal, b"last finished epoch is kept")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 130
    assert b"Traceback" not in shown + out
    call("encode", tmp_path / "m", trained / "x.npz", "-o", tmp_path / "c.npy")
    assert len(read_codes(tmp_path / "c.npy")[0]) == N


def test_without_typer(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('typer', name='typer')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-m", "ssbhash"]

    def run(argument: str) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {"capture_output": True, "text": True, "env": env}
        return subprocess.run([*command, argument], check=False, **options)

    assert ssbhash.__version__ in run("info").stdout, "what is installed is told all the same"
    assert run("--version").stdout == f"ssbhash {ssbhash.__version__}\n"
    process = run("search")
    assert process.returncode == 2
    assert process.stderr == (
        "ssbhash: error: the command line needs typer: pip install 'ssbhash[cli]'\n"
    )


TALES = [
    {"key": f"s{number}", "body": f"{topic} number {number}", "kind": topic.split()[0]}
    for number, topic in enumerate(["tea green cup", "ant red hive", "tea black cup"] * 10)
]


def write_tales(path: Path) -> Path:
    """Write the same items in any format of named fields."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, TALES[0], delimiter="\t" if path.suffix == ".tsv" else ","
            )
            writer.writeheader()
            writer.writerows(TALES)
    else:
        path.write_text("\n".join(map(json.dumps, TALES)))
    return path


FIELDS = ["--text-field", "body", "--label-field", "kind", "--id-field", "key"]


@pytest.fixture(scope="module")
def tales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of texts, its items and their codes."""
    folder = tmp_path_factory.mktemp("tales")
    items = write_tales(folder / "t.csv")
    train = ["train", items, *FIELDS, "-o", folder / "m", "--bits", 16, "--min-df", 1]
    call(*train, "--epochs", 30, "-q")
    call("encode", folder / "m", items, *FIELDS, "-o", folder / "c.npy")
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".ndjson", ".jsonl"])
def test_every_format_gives_the_same_codes(tales: Path, tmp_path: Path, suffix: str) -> None:
    path = write_tales(tmp_path / f"t{suffix}")
    packed = tmp_path / f"t{suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    out = tmp_path / "c.npy"
    for data in (path, packed):
        call("encode", tales / "m", data, *FIELDS, "-o", out)
        assert out.read_bytes() == (tales / "c.npy").read_bytes()
    encode = ["encode", tales / "m", "-", *FIELDS, "-o", out]
    for content in (path.read_bytes(), packed.read_bytes()):
        result = CliRunner().invoke(application, list(map(str, encode)), input=content)
        assert result.exit_code == 0, result.output
        assert out.read_bytes() == (tales / "c.npy").read_bytes()


def test_a_question_finds_items_by_their_own_ids(tales: Path) -> None:
    search = ["search", tales / "c.npy", "a cup of tea", "--model", tales / "m", "-k", 3]
    search += ["--items", tales / "t.csv", *FIELDS]
    (found,) = (json.loads(line) for line in call(*search, "--show", "text", "--json").splitlines())
    texts = {row["key"]: row["body"] for row in TALES}
    assert found["texts"] == [texts[key] for key in found["ids"]]
    assert all(text.startswith("tea") for text in found["texts"])
    lines = call(*search, "--show", "text").splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == found["ids"]
    rows = list(csv.DictReader(call(*search, "--csv").splitlines()))
    assert [row["id"] for row in rows] == found["ids"]
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [int(row["distance"]) for row in rows] == found["distances"]
    every = [*search[:2], tales / "t.csv", *search[3:]]
    by_query = [json.loads(line) for line in call(*every, "--json").splitlines()]
    assert [line["query"] for line in by_query] == [row["key"] for row in TALES]


def test_results_in_csv_files(tales: Path, tmp_path: Path) -> None:
    search = ["search", tales / "c.npy", tales / "c.npy", "--radius", 1]
    call(*search, "-o", tmp_path / "n.csv")
    assert (tmp_path / "n.csv").read_text() == call(*search, "--csv")


@pytest.mark.slow
def test_halves_of_characters_and_other_locales(tales: Path, tmp_path: Path) -> None:
    """JSON can hold half of a surrogate pair, UTF-8 cannot: it is shown as JSON writes it."""
    rows = [{"text": f"{row['body']} \ud800 caf\u00e9", "label": "t\udc00"} for row in TALES]
    path = tmp_path / "odd.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "one", "label": "b"}])))
    model, codes = tmp_path / "m", tmp_path / "c.npy"
    options = ["--analyzer", "char", "--min-df", 1, "--bits", 8, "--epochs", 1, "-q"]
    call("train", path, "-o", model, *options)
    call("encode", model, path, "-o", codes)
    assert "t\udc00" in ssbhash.load(model).classes
    search = ["search", codes, "tea", "--model", model, "--items", path, "--show", "text", "-k", 9]
    call(*search, "-o", tmp_path / "found.jsonl")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for flag in ("--json", "--csv"):
        process = start(*search, flag, env=environment, stderr=subprocess.PIPE)
        out, errors = process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert b"\\ud800 caf\xc3\xa9" in out
    found = json.loads((tmp_path / "found.jsonl").read_text())
    assert set(found["texts"]) & {row["text"] for row in rows}


@pytest.mark.slow
def test_streams_that_are_no_files_and_streams_that_are_closed(tales: Path, tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"text": "green tea"}\n')
    program = f"exec {sys.executable} -m ssbhash"
    search = f"{program} search c.npy QUERIES --model m -k 1"
    expected = call("search", tales / "c.npy", questions, "--model", tales / "m", "-k", 1).encode()
    for command, status, said in (
        (search.replace("QUERIES", f"/dev/stdin < {questions}"), 0, expected),
        (search.replace("QUERIES", f"<(cat {questions})"), 0, expected),
        (search.replace("QUERIES", f"{questions} <&-"), 0, expected),
        (search.replace("QUERIES", f"{questions} >&-"), 0, b""),
        (search.replace("QUERIES", "missing.csv 2>&-"), 2, b""),
    ):
        done = subprocess.run(["bash", "-c", command], cwd=tales, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (status, said, b""), command


def test_bad_questions(tales: Path, tmp_path: Path) -> None:
    model = ["--model", tales / "m"]
    assert "No such file" in one_line("search", tales / "c.npy", "tale.csv", *model)
    assert "needs --items" in one_line("search", tales / "c.npy", "tea", *model, "--show", "text")
    short = tmp_path / "s.jsonl"
    short.write_text('{"body": "a"}')
    items = ["--items", short, "--text-field", "body"]
    assert "1 items, " in one_line("search", tales / "c.npy", "tea", *model, *items)
    unasked = one_line("search", tales / "c.npy", "a question")
    assert "'a question' is no code file" in unasked
    assert "need --model" in unasked
    assert "the question is empty" in one_line("search", tales / "c.npy", " ", *model)


def test_the_loaded_model_encodes_and_predicts(tales: Path) -> None:
    model = ssbhash.load(tales / "m")
    texts = [row["body"] for row in TALES]
    np.testing.assert_array_equal(model.transform(texts), read_codes(tales / "c.npy")[0])
    assert model.predict(["a cup of green tea", "one red ant"]) == ["tea", "ant"]
    assert model.predict_proba(np.array(texts)).shape == (30, 2)
    with pytest.raises(TypeError, match="one string"):
        model.transform("tea")


def test_a_model_is_not_replaced_without_a_word(tales: Path) -> None:
    train = ["train", tales / "t.csv", *FIELDS, "-o", tales / "m", "--bits", 16, "--epochs", 1]
    before = (tales / "m" / "manifest.json").read_bytes()
    assert "m holds a model already: --force replaces it" in one_line(*train, "-q")
    assert (tales / "m" / "manifest.json").read_bytes() == before


def test_columns_go_by_name(tmp_path: Path) -> None:
    x, y = items(N, 0)
    names = [f"f{number}" for number in range(9)]

    def write(name: str, order: list[int], shown: list[str]) -> Path:
        rows = [[*x[row, order], y[row]] for row in range(N)]
        lines = [",".join(map(str, line)) for line in [[*shown, "label"], *rows]]
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    same = list(range(9))
    call("train", write("x.csv", same, names), "-o", tmp_path / "m", "--epochs", 1, "-q")
    call("encode", tmp_path / "m", tmp_path / "x.csv", "-o", tmp_path / "a.npy")
    swapped = write("swapped.csv", same[::-1], names[::-1])
    call("encode", tmp_path / "m", swapped, "-o", tmp_path / "b.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    other = write("other.csv", same, [*names[:8], "g"])
    message = one_line("encode", tmp_path / "m", other, "-o", tmp_path / "c.npy")
    assert "missing 'f8'; unknown 'g'" in message


def test_vectors_in_json_lines(tmp_path: Path) -> None:
    x, y = items(N, 0)
    rows = [{"v": row.tolist(), "label": int(c)} for row, c in zip(x, y, strict=True)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = ["train", tmp_path / "x.jsonl", "-o", tmp_path / "m", "--epochs", 1, "-q"]
    assert "no field 'text' (fields: v, label)" in one_line(*train)
    report = json.loads(call(*train, "--vector-field", "v", "--json"))
    assert report["items"] == report["labelled"] == N


def test_messages_about_labels(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    train = ["train", path, "-o", tmp_path / "m", "-q"]
    path.write_text('{"id": 1, "text": "a", "category": "x"}')
    assert (
        "train.jsonl has no field 'label' (fields: id, text, category). Name it with "
        "--label-field, give --labels FILE, or use --method vdsh"
    ) in one_line(*train)
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": 3}')
    message = one_line(*train)
    assert "train.jsonl line 2: label 3 is a number, line 1's is text" in message
    write_texts(path, N, 0, N)
    assert "leaves none of 90 labels; use at least 0.03" in one_line(*train, "--supervision", 0.001)


def test_evaluation_with_few_labels(trained: Path, tmp_path: Path) -> None:
    y = items(N, 0)[1]
    known = np.arange(N) % 3 > 0
    np.save(tmp_path / "y.npy", np.where(known, y, -1))
    evaluate = ["evaluate", trained / "x.npy", trained / "q.npy", "-k", 5, "--json"]
    queries = ["--query-labels", trained / "q.labels.npy"]
    report = json.loads(call(*evaluate, "--labels", tmp_path / "y.npy", *queries))
    assert report["labelled_items"] == known.sum()
    codes = read_codes(trained / "x.npy")[0][known]
    expected = metrics.evaluate(
        codes, y[known], read_codes(trained / "q.npy")[0], np.load(trained / "q.labels.npy"), 5
    )
    assert report["P@5"] == pytest.approx(expected["P@5"], abs=1e-6)


def test_evaluation_says_where_ties_matter(tmp_path: Path) -> None:
    """All codes are equal, and the file has the items of the queries' class first."""
    np.save(tmp_path / "x.npy", np.zeros((8, 1), np.uint8))
    np.save(tmp_path / "q.npy", np.zeros((3, 1), np.uint8))
    np.save(tmp_path / "x.labels.npy", [0] * 4 + [1] * 4)
    np.save(tmp_path / "q.labels.npy", [0] * 3)
    command = ["evaluate", tmp_path / "x.npy", tmp_path / "q.npy", "-k", 2, "-k", 8, "--json"]
    command += ["--labels", tmp_path / "x.labels.npy", "--query-labels", tmp_path / "q.labels.npy"]
    arguments = [sys.executable, "-m", "ssbhash", *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["P@2"], report["P@2 searched"]) == (0.5, 1)
    assert (report["P@8"], report["P@8 searched"]) == (0.5, 0.5)
    assert (report["distinct"], report["tied@8"]) == (0.125, 8)
    (remark,) = done.stderr.splitlines()
    assert "P@2 depends on the order of the items in the file: 0.500 or 1.000" in remark


def test_version_and_short_help() -> None:
    assert call("--version") == f"ssbhash {ssbhash.__version__}\n"
    assert "Commands:" in call("-h")
    assert "--text-field" in call("search", "-h")
    assert "--install-completion" in call("--help")


def test_output_that_is_cut_off_or_full(trained: Path) -> None:
    search = (
        f"{sys.executable} -m ssbhash search {trained / 'x.npy'} {trained / 'x.npy'} --radius 12"
    )
    script = f"{search} | head -1; echo ${{PIPESTATUS[0]}}"
    options: dict[str, Any] = {"capture_output": True, "text": True}
    process = subprocess.run(["bash", "-c", script], check=False, **options)
    assert process.stdout.splitlines()[-1] in ("0", "141")
    assert process.stderr == ""
    if os.path.exists("/dev/full"):
        process = subprocess.run(["bash", "-c", f"{search} > /dev/full"], check=False, **options)
        assert process.returncode == 2
        assert process.stderr == "ssbhash: error: standard output: No space left on device\n"


def test_a_folder_without_rights_is_named(trained: Path) -> None:
    """As another user where the tests run as root, who may write anywhere."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "c.npy").write_bytes((trained / "x.npy").read_bytes())
        (place / "closed").mkdir(mode=0o555)
        place.chmod(0o755)
        if user == 0:
            os.seteuid(65534)
        try:
            search = "search", place / "c.npy", place / "c.npy", "-o", place / "closed" / "x.npz"
            assert "closed/x.npz: Permission denied" in one_line(*search)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3])
def test_early_ctrl_c_has_no_traceback(seconds: float) -> None:
    code = """if True:
        import sys
        sys.argv = ["ssbhash", "info"]
        from ssbhash.__main__ import main
        print("read", flush=True)
        main()"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"read\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert b"ssbhash" not in err
    assert process.returncode in (0, 130, -signal.SIGINT, 1)


@pytest.mark.parametrize(
    ("arguments", "is_ours"), [(["-m", "ssbhash"], True), (["-m", "mine"], False), ([], False)]
)
def test_ctrl_c_while_numpy_is_read(arguments: list[str], is_ours: bool, tmp_path: Path) -> None:
    """Only the command line changes what Ctrl-C does."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import ssbhash")
    shown = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_DFL)"
    (tmp_path / "mine" / "__main__.py").write_text(shown)
    if arguments == ["-m", "ssbhash"]:
        code = f"import sys; sys.argv = ['ssbhash']; import ssbhash; {shown}"
        arguments = ["-c", code]
    elif not arguments:
        arguments = ["-c", f"import ssbhash; {shown}"]
    folders = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{is_ours}\n"


def test_progress_before_the_bar_on_a_terminal(tales: Path, tmp_path: Path) -> None:
    terminal, stderr = pty.openpty()
    train = ["train", tales / "t.csv", *FIELDS, "-o", tmp_path / "m", "--epochs", 1, "--min-df", 1]
    process = start(*train, stderr=stderr)
    os.close(stderr)
    try:
        shown = read_until(terminal, b"projection of")
    finally:
        process.communicate(timeout=60)
        os.close(terminal)
    assert b"reading" in shown
    assert b"vocabulary of 30 texts" in shown


def test_documented_options_exist() -> None:
    page = Path(__file__).parent.parent / "docs" / "cli.md"
    commands = re.findall(r"^\$ ssbhash (.*)$", page.read_text(), re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        words = command.split(" | ")[0].split()
        shown = call(words[0], "--help")
        for option in filter(lambda word: word.startswith("-"), words):
            assert re.search(rf"(^|[\s,]){option}\b", shown), f"{option} of {words[0]}"


def test_search_and_info_need_no_torch(trained: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from ssbhash.cli.app import application\n"
        f"for command in (['search', {str(trained / 'x.npy')!r}, {str(trained / 'q.npy')!r}],"
        " ['info']):\n"
        "    assert CliRunner().invoke(application, command).exit_code == 0\n"
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
