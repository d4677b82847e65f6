"""The service as processes: workers that share a folder, and kills at any moment.

`--kills 100` is the long form of the tests of kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("typer")
httpx = pytest.importorskip("httpx")

from serving import eventually, free_port, kill, process, wait_until_ready

import ssbhash


def new_folder(folder: Path) -> Path:
    ssbhash.HammingIndex.open(folder, "a", n_bits=32).close()
    return folder


class Changes(threading.Thread):
    """Adds and removes items of its own, and remembers what was confirmed."""

    def __init__(self, port: int, first_id: int) -> None:
        super().__init__(daemon=True)
        self.port, self.next_id = port, first_id
        self.present: set[int] = set()
        self.gone: set[int] = set()
        self.n_confirmed = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        rng = random.Random(self.next_id)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            while not self.stopped.is_set():
                removes = bool(self.present) and rng.random() < 0.3
                one = rng.choice(sorted(self.present)) if removes else self.next_id
                self.next_id += not removes
                body = {"ids": [one]} if removes else {"ids": [one], "codes": [f"{one:08x}"]}
                self.present.discard(one)  # whatever happens now may have happened or not
                try:
                    answer = client.post("/remove" if removes else "/add", json=body)
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    self.n_confirmed += 1
                    (self.gone if removes else self.present).add(one)


def check(folder: Path, clients: list[Changes]) -> None:
    """Every confirmed change is there."""
    with ssbhash.HammingIndex.open(folder, "a") as index:
        index.verify()
        for client in clients:
            ids = sorted(client.present)
            codes = index.get(ids) if ids else []
            assert [bytes(code).hex() for code in codes] == [f"{one:08x}" for one in ids]
            assert not any(one in index for one in client.gone)


@pytest.mark.slow
def test_no_confirmed_change_is_lost_when_the_service_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = new_folder(tmp_path / "index")
    rng = random.Random(0)
    for number in range(request.config.getoption("--kills")):
        with process(folder) as (running, port):
            clients = [Changes(port, (10 * number + one) * 1_000_000) for one in range(3)]
            for client in clients:
                client.start()
            eventually(lambda clients=clients: sum(one.n_confirmed for one in clients) >= 5)
            time.sleep(rng.uniform(0, 0.1))
            kill(running)
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join()
        check(folder, clients)


def workers_of(running: Any) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(running.pid)],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, command in lines if "spawn_main" in command]


@pytest.mark.slow
def test_no_confirmed_change_is_lost_when_workers_are_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = new_folder(tmp_path / "index")
    rng = random.Random(1)
    with process(folder, "--workers", "2") as (running, port):
        clients = [Changes(port, one * 1_000_000) for one in range(4)]
        for client in clients:
            client.start()
        for _ in range(max(2, request.config.getoption("--kills") // 5)):
            before = sum(client.n_confirmed for client in clients)
            eventually(lambda before=before: sum(one.n_confirmed for one in clients) >= before + 20)
            os.kill(rng.choice(workers_of(running)), signal.SIGKILL)
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()
    check(folder, clients)


@pytest.mark.slow
def test_workers_share_a_folder_and_stop_together(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "index")
    with process(folder, "--workers", "2") as (running, port):
        url = f"http://127.0.0.1:{port}"
        # Each request comes by a connection of its own, so both workers get some.
        for one in range(20):
            added = httpx.post(
                f"{url}/add", json={"codes": [f"{one:08x}"], "ids": [one]}, timeout=30
            )
            assert added.json() == {"ids": [one]}
        assert httpx.post(f"{url}/add", json={"codes": ["00"], "ids": [99]}).status_code == 422
        assert httpx.post(f"{url}/add", json={"codes": ["00" * 4], "ids": [0]}).status_code == 409
        time.sleep(0.5)
        for _ in range(10):
            assert httpx.get(f"{url}/stats").json()["index"]["n"] == 20
        total = httpx.get(f"{url}/metrics").text
        assert 'ssbhash_requests_total{path="/add",status="200"} 20.0' in total
        running.terminate()
        assert running.wait(timeout=60) in (0, -signal.SIGTERM)
    with ssbhash.HammingIndex.open(folder, "a") as index:
        assert len(index) == 20


def test_who_may_write_must_be_said_on_a_network(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ssbhash.cli import application

    folder = new_folder(tmp_path / "index")
    found = CliRunner().invoke(application, ["serve", str(folder), "--host", "0.0.0.0"])
    assert found.exit_code == 2
    assert "SSBHASH_WRITE_KEYS" in found.output


@pytest.mark.slow
def test_a_missing_index_ends_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="the service ended"),
        process(tmp_path / "none") as (running, port),
    ):
        wait_until_ready(port, running)
    assert free_port()
