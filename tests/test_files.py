"""Every accepted format, there and back; every broken file gets one clear error."""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ssbhash.data.files import read_codes, read_items, read_labels, write_codes, write_json

sparse = pytest.importorskip("scipy.sparse")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 3)).astype(np.float32)
Y = np.array([0, 1, -1, 2, 0, -1, 1])


def jsonl(path: Path, rows: list[object]) -> Path:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    items = read_items(tmp_path / "x.npy")
    np.testing.assert_array_equal(items.features, X)
    assert len(items) == 7
    assert items.texts is None
    assert items.labels is None


def test_empty_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[:0])
    assert read_items(tmp_path / "x.npy").features.shape == (0, 3)


@pytest.mark.parametrize("names", [{"X": X, "y": Y}, {"anything": X, "y": Y}])
def test_dense_npz(tmp_path: Path, names: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "x.npz", **names)
    items = read_items(tmp_path / "x.npz")
    np.testing.assert_array_equal(items.features, X)
    np.testing.assert_array_equal(items.labels, Y)
    np.testing.assert_array_equal(read_labels(tmp_path / "x.npz"), Y)


def test_sparse_npz_with_labels(tmp_path: Path) -> None:
    matrix = sparse.csr_array(np.maximum(X, 0))
    parts = {"indices": matrix.indices, "indptr": matrix.indptr, "data": matrix.data}
    np.savez(tmp_path / "x.npz", format=b"csr", shape=matrix.shape, y=Y, **parts)
    items = read_items(tmp_path / "x.npz")
    assert sparse.issparse(items.features)
    assert items.features.format == "csr"
    np.testing.assert_array_equal(items.features.toarray(), matrix.toarray())
    np.testing.assert_array_equal(items.labels, Y)


def test_save_npz_of_scipy_in_another_format_is_made_csr(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "x.npz", sparse.csc_array(X))
    items = read_items(tmp_path / "x.npz")
    assert items.features.format == "csr"
    assert len(items) == 7


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    rows = [
        {"text": "grüner Tee 茶", "label": "tea"},
        {"text": "", "label": None},
        {"text": "ants", "more": 1},
    ]
    items = read_items(jsonl(tmp_path / name, rows))
    assert items.texts == ["grüner Tee 茶", "", "ants"]
    assert items.labels == ["tea", None, None]
    assert read_labels(tmp_path / name) == ["tea", None, None]


def test_jsonl_with_other_fields_and_without_labels(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"body": "tea", "topics": ["a", "b"]}, {"body": "ant"}])
    items = read_items(path, text="body", label="topics")
    assert items.labels == [["a", "b"], None]
    assert read_items(path, text="body").labels is None
    with pytest.raises(ValueError, match="no field 'label'"):
        read_labels(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}\n{"text": ', "line 2: not JSON lines"),
        ('{"text": "a"}\n[1]', "line 2: not JSON lines: not an object"),
        ('{"words": "a"}', r"no field 'text' \(fields: words\)"),
        ('{"text": 5}', "line 1: field 'text' is int, not text"),
    ],
)
def test_bad_jsonl(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_items(tmp_path / "t.jsonl")


def test_truncated_gzip(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl.gz", [{"text": "word " * 50 + str(i)} for i in range(200)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"t\.jsonl\.gz cannot be read"):
        read_items(path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(ValueError, match="no gzip file"):
        read_items(path)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def written(columns: dict[str, object]) -> Path:
        parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    texts = read_items(written({"text": ["a", "b"], "label": ["tea", None]}))
    assert texts.texts == ["a", "b"]
    assert texts.labels == ["tea", None]
    assert read_labels(tmp_path / "x.parquet") == ["tea", None]
    vectors = read_items(written({"X": X.tolist(), "label": Y.tolist(), "other": ["z"] * 7}))
    np.testing.assert_array_equal(vectors.features, X)
    assert vectors.labels == Y.tolist()
    numbers = read_items(written({"a": X[:, 0], "b": X[:, 1], "label": Y}))
    np.testing.assert_array_equal(numbers.features, X[:, :2])
    places = read_items(written({"X": X[:, 0], "Y": X[:, 1]}))
    assert places.columns == ["X", "Y"], "numbers, whatever their name"
    one = read_items(written({"length": X[:, 0], "label": Y}))
    np.testing.assert_array_equal(one.features, X[:, :1])
    for wrong in ({"text": ["a", None]}, {"X": [[1.0], [1.0, 2.0]]}, {"a": ["s"], "b": ["t"]}):
        with pytest.raises(ValueError, match="text"):
            read_items(written(wrong))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="truncated or foreign"):
        read_items(tmp_path / "x.parquet")


def test_truncated_and_foreign_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", X=X, y=Y)
    for name in ("x.npy", "x.npz"):
        content = (tmp_path / name).read_bytes()
        for broken in (content[:-20], content[:9], b"", b"<html>", b"\x80\x04N."):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(ValueError, match=rf"{name} cannot be read, truncated or foreign"):
                read_items(tmp_path / name)


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", X=objects)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="Python objects, which are never loaded"):
            read_items(tmp_path / name)


def test_wrong_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[0])
    np.save(tmp_path / "one.npy", 3)
    with pytest.raises(ValueError, match="holds one value, not a label for each item"):
        read_labels(tmp_path / "one.npy")
    with pytest.raises(ValueError, match="must hold a matrix of numbers"):
        read_items(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", a=X, b=X)
    with pytest.raises(ValueError, match=r"it holds \['a', 'b'\]"):
        read_items(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", X=X, y=Y[:3])
    with pytest.raises(ValueError, match="7 items but labels"):
        read_items(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"none of \.npy"):
        read_items(tmp_path / "x.doc")
    with pytest.raises(ValueError, match=r"none of \.npy"):
        read_labels(tmp_path / "x.doc")
    with pytest.raises(FileNotFoundError):
        read_items(tmp_path / "absent.npy")


def test_sparse_indices_out_of_range(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        format=b"csr",
        shape=(1, 3),
        data=np.ones(1),
        indices=np.array([99]),
        indptr=np.array([0, 1]),
    )
    with pytest.raises(ValueError, match=r"x\.npz cannot be read"):
        read_items(tmp_path / "x.npz")


@pytest.mark.parametrize("n_bits", [5, 8, 12, 64])
def test_codes_keep_their_bits(tmp_path: Path, n_bits: int) -> None:
    codes = np.packbits(RNG.integers(0, 2, (9, n_bits)), axis=1, bitorder="little")
    path = tmp_path / "codes.npy"
    write_codes(path, codes, n_bits)
    found, found_bits = read_codes(path)
    np.testing.assert_array_equal(found, codes)
    assert found_bits == n_bits
    assert os.listdir(tmp_path) == ["codes.npy"], "the width is in the same file"
    np.testing.assert_array_equal(np.load(path), codes)


def test_codes_of_other_software_and_their_width(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.ones((2, 1), np.uint8))
    assert read_codes(tmp_path / "c.npy")[1] == 8
    write_json(tmp_path / "c.npy.json", {"n_bits": 5})
    assert read_codes(tmp_path / "c.npy")[1] == 5
    write_codes(tmp_path / "c.npy", np.full((2, 1), 255, np.uint8), 8)
    assert read_codes(tmp_path / "c.npy")[1] == 8, "it was written with the codes"


def test_changed_codes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "c.npy"
    write_codes(path, RNG.integers(0, 256, (9, 2), np.uint8), 16)
    content = path.read_bytes()
    for place in range(content.index(b"\n") + 1, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"c\.npy"):
            read_codes(path)


def test_empty_codes(tmp_path: Path) -> None:
    write_codes(tmp_path / "c.npy", np.zeros((0, 4), np.uint8), 32)
    assert read_codes(tmp_path / "c.npy")[0].shape == (0, 4)


def test_wrong_codes(tmp_path: Path) -> None:
    path = tmp_path / "c.npy"
    np.save(path, X)
    with pytest.raises(ValueError, match="not codes uint8"):
        read_codes(path)
    np.save(path, np.full((2, 1), 255, np.uint8))
    write_json(tmp_path / "c.npy.json", {"n_bits": 5})
    with pytest.raises(ValueError, match="padding bits set"):
        read_codes(path)
    write_json(tmp_path / "c.npy.json", {"n_bits": "5"})
    with pytest.raises(ValueError, match="the number 'n_bits'"):
        read_codes(path)
    with pytest.raises(ValueError, match="codes are"):
        read_codes(tmp_path / "c.bin")
    with pytest.raises(ValueError, match=r"written as \.npy"):
        write_codes(tmp_path / "c.bin", np.ones((2, 1), np.uint8), 8)


def test_columns_keep_their_names_and_a_pandas_index_is_none(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(RNG.normal(size=(9, 3)), columns=list("abc"))
    frame["label"] = np.arange(9) % 2
    frame[frame.a > -9][3:].to_parquet(tmp_path / "x.parquet")
    frame.set_index("a").to_parquet(tmp_path / "named.parquet")
    frame[3:].to_csv(tmp_path / "x.csv")
    for name in ("x.parquet", "x.csv"):
        items = read_items(tmp_path / name)
        assert items.columns == ["a", "b", "c"]
        np.testing.assert_allclose(items.features, frame[list("abc")][3:], rtol=1e-6)
        assert items.labels == frame.label[3:].tolist()
    assert read_items(tmp_path / "named.parquet").columns == ["b", "c"]


ROWS = [{"id": "n7", "text": "grüner Tee, 茶", "label": "tea"}, {"id": "n8", "text": 'two\n"x"'}]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "T.CSV", "t.ndjson", "T.JSONL"])
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_text(tmp_path: Path, name: str, packed: bool) -> None:
    out = io.StringIO()
    if name.lower().endswith("sv"):
        delimiter = "\t" if "tsv" in name else ","
        writer = csv.DictWriter(out, ["id", "text", "label"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    else:
        out.write("\n".join(map(json.dumps, ROWS)))
    content = out.getvalue().encode("utf-8-sig")
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    items = read_items(path, id="id")
    assert items.texts == [row["text"] for row in ROWS]
    assert items.labels == ["tea", None]
    assert items.ids == ["n7", "n8"]
    assert read_labels(path) == ["tea", None]


def test_numbers_in_csv_are_features_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,label,b\n1,3,2.5\n-4,,1e3\n0,-1,7\n")
    items = read_items(path)
    assert items.columns == ["a", "b"]
    assert items.features.tolist() == [[1, 2.5], [-4, 1000], [0, 7]]
    assert items.labels == [3, None, -1]


@pytest.mark.parametrize("name", ["v.jsonl", "v.csv", "v.parquet"])
def test_vectors_in_a_field(tmp_path: Path, name: str) -> None:
    rows = [[1, 2.5], [3, -1e3]]
    path = tmp_path / name
    if name == "v.jsonl":
        jsonl(path, [{"embedding": row, "text": "a"} for row in rows])
    elif name == "v.csv":
        path.write_text("text,embedding\n" + "".join(f'a,"{row}"\n' for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table({"embedding": rows, "text": ["a", "b"]}), path)
    items = read_items(path, vector="embedding")
    assert items.texts is None
    assert items.features.dtype == np.float32
    assert items.features.tolist() == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty; the first line must name the fields"),
        ("t.csv", "a,b\n1\n", "line 2 has 1 cells, line 1 has 2"),
        ("t.csv", "a,a\n1,2\n", "line 1: a field is named twice"),
        ("t.csv", "a,b\n1,x\n", "line 2: 'b' is 'x', no number"),
        ("t.jsonl", '{"text": "a", "label": {"b": 1}}', r"line 1: label {'b': 1} is no class"),
        ("t.jsonl", '{"text": "a", "label": [[1]]}', r"line 1: label \[1\] is no class"),
        ("t.jsonl", '{"text": "a", "label": 1.5}', "line 1: label 1.5 is no class"),
        ("t.jsonl", '{"text": "a", "label": 1e300}', r"line 1: label 1e\+300 is no class"),
        ("t.csv", 'text\n"open', "unexpected end of data"),
        ("t.csv", "label\na\n", "has no field but labels and ids"),
        ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": 3}', "line 2: label 3 is a number, line 1's is text"),
        ("t.jsonl", '{"body": "a", "label": "x"}', r"no field 'text' \(fields: body, label\)"),
        ("t.jsonl", '{"text": "caf\xe9"}', "not UTF-8 text"),
        ("t.jsonl", "[" * 100_000, "line 1: not JSON lines"),
        ("t.json", "[]", r"none of \.npy"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as raised:
        read_items(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("csc", {"indices": [40], "indptr": [0, 1]}),
        ("csc", {"indices": [0], "indptr": [0, 2**40]}),
        ("csr", {"indices": [-1], "indptr": [0, 1, 1, 1]}),
        ("csr", {"indices": [0], "indptr": [0, 5, 0, 0]}),
        ("coo", {"row": [3], "col": [0]}),
        ("dok", {"indices": [0], "indptr": [0, 1]}),
        ("csc", {"indices": [0]}),
    ],
)
def test_crafted_sparse_matrices(tmp_path: Path, kind: str, parts: dict[str, list[int]]) -> None:
    arrays = {name: np.array(values) for name, values in parts.items()}
    path = tmp_path / "x.npz"
    np.savez(path, format=kind.encode(), shape=[3, 1], data=np.ones(1), **arrays)
    with pytest.raises(ValueError, match=r"x\.npz cannot be read"):
        read_items(path)


@pytest.mark.parametrize("kind", ["csc", "coo", "csr"])
def test_absurd_sizes_take_no_memory(tmp_path: Path, kind: str) -> None:
    parts = {"row": [0], "col": [0]} if kind == "coo" else {"indices": [0], "indptr": [0, 1]}
    arrays = {name: np.array(values) for name, values in parts.items()}
    for shape in ([2**40, 1], [2**62, 2**62], [1, 2**40]):
        np.savez(tmp_path / "x.npz", format=kind.encode(), shape=shape, data=np.ones(1), **arrays)
        with pytest.raises(ValueError, match=r"x\.npz cannot be read"):
            read_items(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", X)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(
        content.replace(b"(7, 3), }" + b" " * 18, b"(9223372036854775808, 3), } ")
    )
    with pytest.raises(ValueError, match=r"x\.npy cannot be read"):
        read_items(tmp_path / "x.npy")
