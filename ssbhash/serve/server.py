"""The service as processes: one uvicorn worker, or several that share a folder."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ssbhash import HammingIndex, set_num_threads
from ssbhash.serve.app import create_app
from ssbhash.serve.settings import Settings
from ssbhash.serve.source import is_sharded
from ssbhash.threads import resolve

_VARIABLE = "SSBHASH_SERVE"
# Importing torch and opening a model takes a worker some seconds. uvicorn also waits so long
# for a sign of life of a worker that died just when it was asked for one.
_START_S = 15
# Seconds after which a thread of Python gives way. The event loop and the thread that searches
# hand work to each other in far less than the usual 5 ms.
_SWITCH_S = 0.0005


def run(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; running requests are answered first.

    Parameters
    ----------
    settings
        What to serve.
    host, port
        Where to listen.
    workers
        Number of processes. One of them writes. SIGHUP replaces them one after the other.

    Raises
    ------
    ValueError
        If anybody on the network could change the index, or several workers were to own a
        sharded index.
    """
    is_guarded = settings.write_keys or settings.read_keys or not settings.writes
    if not is_guarded and not _is_this_machine(host):
        raise ValueError(
            f"anybody who reaches {host} could change the index: set SSBHASH_WRITE_KEYS, or give "
            "--read-only"
        )
    # A wrong folder is told in one line, before any process starts.
    if not is_sharded(settings.folder or ""):
        HammingIndex.open(settings.folder or "").close()
    elif workers > 1:
        raise ValueError(
            f"a sharded index is served by one worker, not {workers}: it owns the shards"
        )
    with tempfile.TemporaryDirectory(prefix="ssbhash-") as place:
        if workers > 1:
            threads = settings.n_threads or max(1, resolve(None) // workers)
            settings = replace(settings, socket=str(Path(place) / "writer"), n_threads=threads)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = place
        os.environ[_VARIABLE] = settings.to_json()
        uvicorn.run(
            f"{__name__}:application",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            limit_concurrency=settings.max_connections,
            timeout_worker_healthcheck=_START_S,
            server_header=False,
            proxy_headers=False,  # nothing here asks where a request came from
        )


def application() -> FastAPI:
    """Make the application of a worker, as `run` has set it."""
    settings = Settings.from_json(os.environ[_VARIABLE])
    if settings.socket is not None:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    return app_of_process(settings)


def app_of_process(settings: Settings) -> FastAPI:
    """Make the application of a process that does nothing else."""
    sys.setswitchinterval(_SWITCH_S)
    if settings.n_threads is not None:
        set_num_threads(settings.n_threads)
    return create_app(settings=settings)


def _end_with_parent(parent: int) -> None:
    """Stop when the process that started the workers is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
