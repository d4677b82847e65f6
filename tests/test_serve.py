"""The service answers what the index answers; wrong requests get the right status."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from serving import eventually, serving

import ssbhash
from ssbhash.serve import Settings, create_app
from ssbhash.serve.gathering import Gatherer

NPY = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"
RNG = np.random.default_rng(5)
# Few distinct codes: many ties, whose order must be that of the index.
CODES = RNG.integers(0, 6, (3000, 2), dtype=np.uint8)


def new_index(codes: Any = CODES, n_bits: int = 16, ids: Any = None) -> ssbhash.HammingIndex:
    index = ssbhash.HammingIndex(n_bits)
    index.add(codes, ids)
    return index


def digits(codes: Any) -> list[str]:
    return [row.tobytes().hex() for row in codes]


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Serve an index that no test changes.

    Services of one process share the metric of items, so this one sets it at its start alone.
    """
    with serving(create_app(new_index(), settings=Settings(look_s=3600))) as found:
        yield found


@pytest.fixture
def own() -> Iterator[Any]:
    """Serve an index that the test may change."""
    with serving(create_app(new_index())) as found:
        yield found


@pytest.mark.parametrize("gather_us", [0, 200])
def test_concurrent_searches_find_what_the_index_finds(gather_us: int) -> None:
    index = new_index()
    queries = RNG.integers(0, 6, (200, 2), dtype=np.uint8)
    with serving(create_app(index, settings=Settings(gather_us=gather_us))) as client:

        def ask(number: int) -> None:
            k, most = 1 + number % 7, None if number % 3 else number % 5
            body = {"codes": digits(queries[number : number + 1]), "k": k, "max_distance": most}
            found = client.post("/search", json=body).json()
            expected = index.search(queries[number], k, max_distance=most)
            is_found = expected.ids >= 0
            assert found["ids"] == [expected.ids[is_found].tolist()]
            assert found["distances"] == [expected.distances[is_found].tolist()]

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(len(queries))))


def test_batches_are_gathered() -> None:
    sizes: list[int] = []

    def answer(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        time.sleep(0.02)
        return [one + 1 for one in batch]

    async def ask() -> list[int]:
        gatherer = Gatherer(answer, max_questions=8)
        try:
            return await asyncio.gather(*(gatherer.ask(one) for one in range(20)))
        finally:
            gatherer.close()

    assert asyncio.run(ask()) == list(range(1, 21))
    assert sum(sizes) == 20
    assert max(sizes) == 8


def test_a_batch_waits_for_those_that_come_back() -> None:
    sizes: list[int] = []

    def answer(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        time.sleep(0.5)
        return batch

    async def ask() -> None:
        gatherer = Gatherer(answer)
        alone = asyncio.create_task(gatherer.ask(0))
        while not sizes:
            await asyncio.sleep(0.001)
        await asyncio.gather(alone, *(gatherer.ask(one) for one in (1, 2)))
        early = asyncio.create_task(gatherer.ask(3))
        await asyncio.sleep(0.02)
        await asyncio.gather(early, gatherer.ask(4))
        gatherer.close()

    asyncio.run(ask())
    assert sizes == [1, 2, 2]


def test_a_batch_that_fails_tells_everybody_and_the_next_one_works() -> None:
    def answer(batch: list[int]) -> list[int]:
        if 0 in batch:
            raise MemoryError("no memory")
        return batch

    async def ask() -> None:
        gatherer = Gatherer(answer)
        both = await asyncio.gather(gatherer.ask(0), gatherer.ask(1), return_exceptions=True)
        assert [type(one) for one in both] == [MemoryError, MemoryError]
        assert await gatherer.ask(2) == 2
        gatherer.close()

    asyncio.run(ask())


def test_more_like_this_leaves_the_item_out(client: Any) -> None:
    index = new_index()
    for one in (0, 7, 2999):
        found = client.post("/search", json={"ids": [one], "k": 30}).json()
        expected = index.search(CODES[one], 30, exclude=one)
        assert found["ids"] == [expected.ids.tolist()]
        assert found["distances"] == [expected.distances.tolist()]


def test_within_and_histogram_count_the_same(client: Any) -> None:
    query = CODES[:2]
    found = client.post("/within", json={"codes": digits(query), "radius": 2}).json()
    expected = new_index().within(query, 2)
    assert [len(ids) for ids in found["ids"]] == np.diff(expected.lims).tolist()
    assert [one for ids in found["ids"] for one in ids] == expected.ids.tolist()
    counted = client.post("/histogram", json={"codes": digits(query[:1])}).json()
    assert counted["n"] == 3000
    assert sum(counted["counts"][:3]) == len(found["ids"][0])
    assert len(counted["counts"]) == 17


def test_a_histogram_of_a_large_index_is_that_of_a_sample(monkeypatch: Any) -> None:
    monkeypatch.setattr("ssbhash.serve.service._SAMPLE", 500)
    with serving(create_app(new_index())) as client:
        counted = client.post("/histogram", json={"ids": [0]}).json()
    assert counted["n"] == sum(counted["counts"]) == 500


def test_binary_bodies_carry_the_same(client: Any) -> None:
    expected = new_index().search(CODES[:50], 4)
    headers = {"Content-Type": NPY, "Accept": NPY}
    found = client.post("/search?k=4", content=npy(CODES[:50]), headers=headers)
    assert found.headers["Content-Type"] == NPY
    arrays = np.load(io.BytesIO(found.content))
    assert arrays["lims"].tolist() == list(range(0, 204, 4))
    assert arrays["ids"].tolist() == expected.ids.ravel().tolist()
    assert arrays["distances"].tolist() == expected.distances.ravel().tolist()
    near = client.post("/within?radius=1", content=npy(CODES[:3]), headers=headers)
    arrays = np.load(io.BytesIO(near.content))
    expected_near = new_index().within(CODES[:3], 1)
    for name in ("lims", "ids", "distances"):
        assert arrays[name].tolist() == getattr(expected_near, name).tolist()


def arrow(**columns: Any) -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def test_arrow_carries_the_same(client: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    found = client.post(
        "/search?k=3",
        content=arrow(code=pa.array(map(bytes, CODES[:5]), pa.binary(2))),
        headers={"Content-Type": ARROW, "Accept": ARROW},
    )
    table = ipc.open_stream(found.content).read_all().to_pydict()
    expected = new_index().search(CODES[:5], 3)
    assert table["ids"] == expected.ids.tolist()
    assert table["distances"] == expected.distances.tolist()


def test_arrow_adds_and_asks_for_ids(own: Any) -> None:
    pa = pytest.importorskip("pyarrow")

    def post(path: str, **columns: Any) -> Any:
        return own.post(path, content=arrow(**columns), headers={"Content-Type": ARROW})

    codes = pa.array([b"\xff\xff", b"\xff\xfe"], pa.binary(2))
    assert post("/add", code=codes, id=[7000, 7001]).json() == {"ids": [7000, 7001]}
    assert post("/search?k=1", id=[7000]).json() == {"ids": [[7001]], "distances": [[1]]}
    assert post("/remove", id=[7000]).json() == {"n_removed": 1}
    wrong: list[dict[str, Any]] = [
        {"code": [1, 2]},
        {"other": codes},
        {"code": codes, "text": ["a", "b"]},
    ]
    wrong += [{"code": pa.array([b"", None])}, {"code": pa.array([b"a", b"ab"])}, {"vector": ["a"]}]
    for columns in wrong:
        assert post("/search", **columns).status_code == 422


def test_items_are_added_and_removed(own: Any) -> None:
    assert own.post("/add", json={"codes": ["ffff", "fffe"]}).json() == {"ids": [3000, 3001]}
    assert own.post("/add", json={"codes": ["ffff"], "ids": [9000]}).json() == {"ids": [9000]}
    found = own.post("/search", json={"codes": ["ffff"], "k": 2}).json()
    assert found == {"ids": [[3000, 9000]], "distances": [[0, 0]]}
    again = own.post("/add", json={"codes": ["ffff"], "ids": [9000]})
    assert again.status_code == 409
    assert "9000" in again.json()["detail"]
    assert own.post("/remove", json={"ids": [3000, 9000]}).json() == {"n_removed": 2}
    gone = own.post("/remove", json={"ids": [3000]})
    assert (gone.status_code, gone.json()["detail"]) == (404, "id 3000 is not in the index")
    added = own.post("/add", content=npy(CODES[:4]), headers={"Content-Type": NPY})
    assert added.json() == {"ids": [9001, 9002, 9003, 9004]}
    assert own.get("/stats").json()["index"]["n"] == 3005
    binary = {"Content-Type": NPY}
    removed = own.post("/remove", content=npy(np.array([9001, 9002])), headers=binary)
    assert removed.json() == {"n_removed": 2}
    # An array of another kind than the request is about changes nothing.
    assert own.post("/remove", content=npy(CODES[:2]), headers=binary).status_code == 422
    assert own.post("/add", content=npy(np.array([1, 2])), headers=binary).status_code == 422
    assert own.get("/stats").json()["index"]["n"] == 3003


def test_ids_may_be_strings() -> None:
    index = new_index(CODES[:3], ids=["a", "b", "ü"])
    with serving(create_app(index)) as client:
        found = client.post("/search", json={"ids": ["ü"], "k": 5}).json()
        assert sorted(found["ids"][0]) == ["a", "b"]
        assert client.post("/add", json={"codes": ["ffff"], "ids": ["d"]}).json() == {"ids": ["d"]}
        assert client.post("/search", json={"ids": [1]}).status_code == 422
        assert client.post("/search", json={"ids": ["no"]}).status_code == 404
        binary = client.post("/search", json={"ids": ["a"]}, headers={"Accept": NPY})
        assert sorted(np.load(io.BytesIO(binary.content))["ids"].tolist()) == ["b", "d", "ü"]


def test_an_empty_index_answers() -> None:
    with serving(create_app(ssbhash.HammingIndex(16))) as client:
        found = client.post("/search", json={"codes": ["ffff"]}).json()
        assert found == {"ids": [[]], "distances": [[]]}
        assert client.post("/histogram", json={"codes": ["ffff"]}).json()["n"] == 0


# What is wrong gets the right status

WRONG: list[tuple[str, Any, int, str]] = [
    ("/search", {"codes": ["ffff"], "k": 0}, 422, "k: "),
    ("/search", {"codes": ["ffff"], "k": 1001}, 422, "k must be 1000 at most"),
    ("/search", {"codes": ["ffff"], "k": True}, 422, "k: "),
    ("/search", {"codes": ["ffff"], "max_distance": -1}, 422, "max_distance: "),
    ("/search", {"codes": ["ff"]}, 422, "16"),
    ("/search", {"codes": ["ffff", "ff"]}, 422, "same length"),
    ("/search", {"codes": ["xyz"]}, 422, "codes.0"),
    ("/search", {"codes": []}, 422, "codes: "),
    ("/search", {}, 422, "give exactly one of texts, vectors, codes, ids; got none"),
    ("/search", {"codes": ["ffff"], "ids": [1]}, 422, "got codes, ids"),
    ("/search", {"codes": ["ffff"], "kk": 3}, 422, "kk"),
    ("/search", {"texts": ["a"]}, 422, "no model"),
    ("/search", {"ids": [-1]}, 422, "ids.0"),
    ("/search", {"ids": [2**63 - 1]}, 422, "ids.0"),
    ("/search", {"ids": [99999]}, 404, "id 99999 is not in the index"),
    ("/search", {"ids": [1, "a"]}, 422, "ids"),
    ("/within", {"codes": ["ffff"]}, 422, "radius: "),
    ("/add", {"ids": [1]}, 422, "give exactly one of texts, vectors, codes"),
    ("/add", {"codes": ["ffff"], "ids": [4000, 4001]}, 422, "1 codes but 2 ids"),
    ("/histogram", {"ids": [1, 2]}, 422, "one query"),
]


@pytest.mark.parametrize(("path", "body", "status", "detail"), WRONG)
def test_wrong_fields_are_named(
    client: Any, path: str, body: Any, status: int, detail: str
) -> None:
    found = client.post(path, json=body)
    assert found.status_code == status
    assert detail in found.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"codes": ["ffff"]}', "text/plain", 415),
        (b'{"codes": ["ffff"]}', "", 415),
        (b"x", NPY, 400),
        (b"x", ARROW, 400),
        (npy(CODES[:3])[:-1], NPY, 400),
        (npy(CODES[:3]) + b"x", NPY, 400),
        (npy(CODES[:3]).replace(b"(3, 2)", b"(9, 9)"), NPY, 400),
        (npy(CODES[:3].astype(float)), NPY, 422),
        (npy(CODES[:3, :1].copy()), NPY, 422),
        (npy(np.array(["a", "b"])), NPY, 422),
        (npy(np.array([1, 99999])), NPY, 404),
        (npy(np.array([[1.5]])), NPY, 422),
    ],
)
def test_malformed_bodies_are_refused(client: Any, content: bytes, kind: str, status: int) -> None:
    pytest.importorskip("pyarrow")
    found = client.post("/search", content=content, headers={"Content-Type": kind})
    assert found.status_code == status, found.text
    assert found.json()["detail"]


def test_a_pickle_is_never_opened(client: Any) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    found = client.post("/search", content=file.getvalue(), headers={"Content-Type": NPY})
    assert found.status_code in (400, 422)


def test_an_answer_nobody_can_write_is_refused(client: Any) -> None:
    body = {"codes": ["ffff"]}
    assert client.post("/search", json=body, headers={"Accept": "image/png"}).status_code == 406
    browser = {"Accept": "text/html,*/*;q=0.8"}
    assert client.post("/search", json=body, headers=browser).status_code == 200
    assert client.get("/search").status_code == 405
    assert client.get("/nowhere").status_code == 404


def test_limits() -> None:
    settings = Settings(max_body_bytes=1000, max_rows=4, max_results=20)
    with serving(create_app(new_index(), settings=settings)) as client:
        large = client.post("/search", json={"codes": ["ffff"] * 200})
        assert large.status_code == 413

        def parts() -> Iterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        chunked = client.post("/search", content=parts(), headers={"Content-Type": NPY})
        assert chunked.status_code == 413
        assert client.post("/search", json={"codes": ["ffff"] * 5, "k": 1}).status_code == 422
        assert client.post("/search", json={"codes": ["ffff"] * 4, "k": 6}).status_code == 422
        assert client.post("/search", json={"codes": ["ffff"] * 4, "k": 5}).status_code == 200
        near = client.post("/within", json={"codes": ["0000"], "radius": 16})
        assert near.status_code == 422
        assert "more than 20 items" in near.json()["detail"]


def test_a_slow_body_is_given_up() -> None:
    with serving(create_app(new_index(), settings=Settings(timeout_s=0.2))) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as slow:
            slow.sendall(
                b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 30\r\n\r\n{"
            )
            answer = b""
            while part := slow.recv(1 << 16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert client.get("/ready").status_code == 200


def test_a_shard_that_gives_no_answer_is_named() -> None:
    class Silent(ssbhash.HammingIndex):
        def search(self, *arguments: Any, **options: Any) -> Any:
            raise TimeoutError("shard 1 gave no answer in 60 s")

    index = Silent(16)
    index.add(CODES)
    with serving(create_app(index)) as client:
        answer = client.post("/search", json={"codes": ["ffff"]})
    assert (answer.status_code, answer.json()["detail"]) == (504, "shard 1 gave no answer in 60 s")


def test_a_slow_search_is_given_up() -> None:
    class Slow(ssbhash.HammingIndex):
        def search(self, *arguments: Any, **options: Any) -> Any:
            time.sleep(0.5)
            return super().search(*arguments, **options)

    for gather_us in (0, 200):
        index = Slow(16)
        index.add(CODES)
        app = create_app(index, settings=Settings(timeout_s=0.1, gather_us=gather_us))
        with serving(app) as client:
            assert client.post("/search", json={"codes": ["ffff"]}).status_code == 504
            assert client.get("/health").json() == {"healthy": True}


def test_keys() -> None:
    settings = Settings(read_keys=("reader", "reader2"), write_keys=("writer",))
    body, new = {"codes": ["ffff"]}, {"codes": ["ffff"]}

    def key(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {name}"}

    with serving(create_app(new_index(), settings=settings)) as client:
        missing = client.post("/search", json=body)
        assert missing.status_code == 401
        assert missing.headers["WWW-Authenticate"] == "Bearer"
        assert client.post("/search", json=body, headers=key("other")).status_code == 401
        assert client.post("/search", json=body, headers=key("ü".encode().hex())).status_code == 401
        assert client.post("/add", json=new).status_code == 401
        assert client.post("/add", json=new, headers=key("reader")).status_code == 403
        assert client.post("/remove", json={"ids": [1]}, headers=key("reader")).status_code == 403
        for name in ("reader", "reader2", "writer"):
            assert client.post("/search", json=body, headers=key(name)).status_code == 200
        assert client.post("/add", json=new, headers=key("writer")).status_code == 200
        for path in ("/stats", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=key("reader")).status_code == 200
        for path in ("/health", "/ready", "/"):
            assert client.get(path).status_code == 200
        # An oversized body of a stranger is not even read.
        assert client.post("/search", content=b" " * 10**6).status_code == 401


def test_without_read_keys_everybody_reads() -> None:
    with serving(create_app(new_index(), settings=Settings(write_keys=("w",)))) as client:
        assert client.post("/search", json={"codes": ["ffff"]}).status_code == 200
        assert client.post("/add", json={"codes": ["ffff"]}).status_code == 401


def test_a_service_that_only_reads() -> None:
    with serving(create_app(new_index(), settings=Settings(writes=False))) as client:
        assert client.post("/add", json={"codes": ["ffff"]}).status_code == 403


def test_metrics(own: Any) -> None:
    def total(name: str) -> float:
        lines = own.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    name = 'ssbhash_requests_total{path="/search",status="200"}'
    before = total(name)
    own.post("/search", json={"codes": ["ffff"]})
    own.post("/search", json={"codes": []})
    assert total(name) == before + 1
    assert total("ssbhash_items") == 3000
    assert total('ssbhash_requests_total{path="other"') >= 0
    own.post("/add", json={"codes": ["ffff"]})
    assert total("ssbhash_items") == 3001


def test_answers_are_safe_in_browsers(client: Any) -> None:
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page


def test_openapi_has_an_example_of_every_request(client: Any) -> None:
    described = client.get("/openapi.json").json()
    for path in ("encode", "search", "within", "histogram", "items", "add", "remove"):
        content = described["paths"][f"/{path}"]["post"]["requestBody"]["content"]
        assert content["application/json"]["examples"]
        assert NPY in content


# Folders


def saved(folder: Path, codes: Any, n_bits: int = 16) -> Path:
    new_index(codes, n_bits).save(folder)
    return folder


def test_a_folder_is_written_and_survives(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", CODES)
    with serving(create_app(settings=Settings(folder=str(folder)))) as client:
        assert client.post("/add", json={"codes": ["ffff"]}).json() == {"ids": [3000]}
        with pytest.raises(BlockingIOError):
            ssbhash.HammingIndex.open(folder, "a")
    with ssbhash.HammingIndex.open(folder, "a") as index:
        assert len(index) == 3001


def test_changes_of_another_process_are_seen(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", CODES)
    settings = Settings(folder=str(folder), writes=False, look_s=0.02)
    with (
        ssbhash.HammingIndex.open(folder, "a") as writer,
        serving(create_app(settings=settings)) as client,
    ):
        writer.add(np.array([[255, 255]], np.uint8))
        eventually(lambda: client.get("/stats").json()["index"]["n"] == 3001)


def test_the_service_writes_once_nobody_else_does(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", CODES)
    settings = Settings(folder=str(folder), look_s=0.02, socket=str(tmp_path / "socket"))
    other = ssbhash.HammingIndex.open(folder, "a")
    with serving(create_app(settings=settings)) as client:
        threading.Timer(0.5, other.close).start()
        assert client.post("/add", json={"codes": ["ffff"]}).json() == {"ids": [3000]}


def test_a_new_index_takes_over_without_a_lost_request(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", CODES)
    second = saved(tmp_path / "second", CODES[::-1][:1000].copy())
    link = tmp_path / "link"
    link.symlink_to(first)
    settings = Settings(folder=str(link), look_s=0.02)
    answers = {
        one: json.dumps(ssbhash.HammingIndex.open(one).search(CODES[5], 20).ids.tolist())
        for one in (first, second)
    }
    assert answers[first] != answers[second]
    seen: set[str] = set()
    stop = threading.Event()
    with serving(create_app(settings=settings)) as client:

        def ask() -> None:
            with httpx.Client(base_url=client.base_url) as mine:
                while not stop.is_set():
                    found = mine.post("/search", json={"codes": digits(CODES[5:6]), "k": 20})
                    assert found.status_code == 200
                    seen.add(json.dumps(found.json()["ids"][0]))

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            for target in (second, first, second):
                new = tmp_path / "new"
                new.symlink_to(target)
                os.replace(new, link)
                n = len(ssbhash.HammingIndex.open(target))
                eventually(lambda n=n: client.get("/stats").json()["index"]["n"] == n)
                seen.clear()
                eventually(lambda target=target: answers[target] in seen)
                added = client.post("/add", json={"codes": ["ffff"]})
                assert added.status_code == 200
                client.post("/remove", json={"ids": added.json()["ids"]})
            stop.set()
            for one in asking:
                one.result()
    assert seen <= set(answers.values())
    with ssbhash.HammingIndex.open(first, "a"), ssbhash.HammingIndex.open(second, "a"):
        pass  # both were let go


def test_a_damaged_new_index_leaves_the_old_one(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", CODES)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with serving(create_app(settings=Settings(folder=str(link), look_s=0.02))) as client:
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "manifest.json").write_text("{}")
        link.unlink()
        link.symlink_to(broken)
        eventually(lambda: client.get("/ready").status_code == 503)
        assert client.post("/search", json={"codes": ["ffff"]}).status_code == 200
        link.unlink()
        link.symlink_to(folder)
        eventually(lambda: client.get("/ready").status_code == 200)


def test_requests_that_run_are_answered_at_the_stop() -> None:
    begun = threading.Event()

    class Slow(ssbhash.HammingIndex):
        def search(self, *arguments: Any, **options: Any) -> Any:
            begun.set()
            time.sleep(0.3)
            return super().search(*arguments, **options)

    index = Slow(16)
    index.add(CODES)
    with ThreadPoolExecutor(1) as pool, serving(create_app(index)) as client:
        url = client.base_url.join("/search")
        waiting = pool.submit(lambda: httpx.post(url, json={"codes": ["ffff"]}))
        begun.wait()
    assert waiting.result().status_code == 200


# Models


@pytest.fixture(scope="module")
def texts() -> Iterator[tuple[Any, Any]]:
    """A model of texts, and a service with the texts that it was trained on."""
    pytest.importorskip("torch")
    from ssbhash.data import Items, TextFeatures
    from ssbhash.models import Pipeline

    known = ["green tea", "black tea", "red ants", "black ants"] * 5
    pipeline = Pipeline(
        ssbhash.SSBVAE(n_bits=16, n_epochs=30, verbose=False), TextFeatures(min_df=1)
    )
    pipeline.fit(Items(texts=known, labels=["drink", None, "insect", None] * 5))
    index = new_index(pipeline.transform(known))
    with serving(create_app(index, model=pipeline)) as client:
        yield pipeline, client


def test_texts_are_encoded(texts: Any) -> None:
    pipeline, client = texts
    found = client.post("/encode", json={"texts": ["white tea", "ants"]}).json()
    assert found["codes"] == digits(pipeline.transform(["white tea", "ants"]))
    assert [max(one, key=one.get) for one in found["classes"]] == ["drink", "insect"]
    near = client.post("/search", json={"texts": ["green tea"], "k": 3}).json()
    assert near["distances"] == [[0, 0, 0]]
    added = client.post("/add", json={"texts": ["green tea"], "ids": [77]})
    assert added.json() == {"ids": [77]}
    assert client.post("/encode", json={"vectors": [[1.0]]}).status_code == 422
    assert client.get("/stats").json()["model"]["reads"] == "texts"


def test_vectors_are_encoded(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    from ssbhash.models import ITQ

    hasher = ITQ(n_bits=16).fit(X[:300])
    index = new_index(hasher.transform(X[:300]))
    np.savez(tmp_path / "items.npz", X=X[:300], y=y[:300])
    thumbnails = tmp_path / "pictures"
    thumbnails.mkdir()
    (thumbnails / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    settings = Settings(items=str(tmp_path / "items.npz"), thumbnails=str(thumbnails))
    with serving(create_app(index, model=hasher, settings=settings)) as client:
        found = client.post("/encode", json={"vectors": X[:2].tolist()}).json()
        assert found["codes"] == digits(hasher.transform(X[:2]))
        binary = client.post(
            "/encode", content=npy(X[:2].astype(np.float32)), headers={"Content-Type": NPY}
        )
        assert binary.json()["codes"] == found["codes"]
        short = client.post("/encode", json={"vectors": [[1.0, 2.0]]})
        assert short.status_code == 422
        assert "64" in short.json()["detail"]
        assert client.post("/encode", json={"vectors": [[1.0], [1.0, 2.0]]}).status_code == 422
        huge = client.post("/encode", json={"vectors": [[1e300] * 64]})
        assert huge.status_code == 422
        items = client.post("/items", json={"ids": [4, 5]}).json()["items"]
        assert items[0]["label"] == str(y[4])
        assert items[0]["thumbnail"] == "thumbnails/4"
        assert "thumbnail" not in items[1]
        assert client.get("/thumbnails/4").content.startswith(b"\x89PNG")
        for name in ("5", "..%2fsecret", "../secret", "%00"):
            assert client.get(f"/thumbnails/{name}").status_code in (404, 400)


def test_model_and_index_must_fit() -> None:
    pytest.importorskip("torch")
    from ssbhash.models import LSH
    from ssbhash.serve.source import FixedSource

    hasher = LSH(n_bits=8).fit(np.eye(4))
    with pytest.raises(ValueError, match="16 bits, but the model makes codes of 8"):
        FixedSource(new_index(), hasher.n_bits)
