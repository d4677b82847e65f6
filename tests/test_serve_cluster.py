"""The service over a sharded index, under uvicorn and under Ray Serve."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
ray = pytest.importorskip("ray")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from serving import eventually, free_port, serving

from ssbhash import HammingIndex
from ssbhash.cluster import ShardedIndex
from ssbhash.serve import Settings, create_app, ray_application, run

pytestmark = pytest.mark.filterwarnings("ignore")
CODES = np.random.default_rng(0).integers(0, 6, (2000, 2), np.uint8)  # many ties


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="CRITICAL",
        object_store_memory=80 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ShardedIndex.open(tmp_path / "index", n_bits=16, n_shards=3, n_replicas=2) as index:
        index.add(CODES)
    return tmp_path / "index"


def assert_same(client: Any, one: HammingIndex) -> None:
    queries = CODES[:40]
    body = {"codes": [row.tobytes().hex() for row in queries], "k": 20}
    answer = client.post("/search", json=body)
    assert answer.status_code == 200, answer.text
    found, right = answer.json(), one.search(queries, 20)
    assert found["ids"] == right.ids.tolist()
    assert found["distances"] == right.distances.tolist()


def check(client: Any) -> HammingIndex:
    """Ask, add, remove, and compare with one index, which is returned."""
    one = HammingIndex(16)
    one.add(CODES)
    assert_same(client, one)
    added = client.post("/add", json={"codes": ["0001", "0203"]}).json()["ids"]
    assert added == one.add(np.array([[0, 1], [2, 3]], np.uint8)).tolist()
    assert client.post("/remove", json={"ids": [5, 7]}).json() == {"n_removed": 2}
    one.remove([5, 7])
    assert client.post("/items", json={"ids": [5]}).status_code == 404
    assert_same(client, one)
    assert client.get("/ready").status_code == 200
    stats = client.get("/stats").json()["index"]
    assert stats["n"] == len(one)
    # A process with replicas dies: the others answer, and it comes back.
    os.kill(stats["shards"][0]["replicas"][0]["process"], signal.SIGKILL)
    assert_same(client, one)
    eventually(lambda: client.get("/stats").json()["index"]["n_replaced"] == 3)
    assert_same(client, one)
    return one


def test_a_sharded_folder_is_served(folder: Path) -> None:
    with serving(create_app(settings=Settings(folder=str(folder)))) as client:
        check(client)
    with ShardedIndex.open(folder) as index:  # the service has let go of it
        assert len(index) == 2000
    with pytest.raises(ValueError, match="one worker, not 2"):
        run(Settings(folder=str(folder)), workers=2)


def test_ray_serve(folder: Path) -> None:
    serve = pytest.importorskip("ray.serve")
    port = free_port()
    serve.start(http_options={"port": port, "host": "127.0.0.1"})
    with pytest.raises(ValueError, match="num_replicas must be 1"):
        ray_application(Settings(folder=str(folder)), num_replicas=2)
    serve.run(ray_application(Settings(folder=str(folder))))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        one = check(client)
        # The process that answers and owns the index dies: Ray Serve starts another one.
        (name,) = [
            actor["name"]
            for actor in ray.util.list_named_actors(all_namespaces=True)
            if "ssbhash" in actor["name"]
        ]
        ray.kill(ray.get_actor(name, namespace="serve"))

        def answers() -> bool:
            try:
                found = client.get("/stats")
            except httpx.TransportError:
                return False
            return found.status_code == 200 and found.json()["index"]["n"] == len(one)

        eventually(answers)
        assert_same(client, one)
    serve.shutdown()
