"""A service for tests: on a thread of this process, or as processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import uvicorn

START_S = 120


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_until_ready(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process is None or process.poll() is None, "the service ended"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError("the service is not ready")


@contextmanager
def serving(app: Any) -> Iterator[httpx.Client]:
    """Serve an application on a thread; hand out a client of it."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service ended"
            time.sleep(0.005)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def process(folder: Any, *options: str, port: int | None = None) -> Iterator[tuple[Any, int]]:
    """Run `ssbhash serve`; hand out the process and its port. It is killed in the end."""
    port = port or free_port()
    command = [sys.executable, "-m", "ssbhash", "serve", str(folder), "--port", str(port), *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    threading.Thread(target=lambda: list(running.stderr or ()), daemon=True).start()
    try:
        wait_until_ready(port, running)
        yield running, port
    finally:
        kill(running)


def kill(running: subprocess.Popen[bytes]) -> None:
    """Kill the service with all its workers, without a warning."""
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    if running.stderr is not None:
        running.stderr.close()


def eventually(is_so: Callable[[], Any]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
