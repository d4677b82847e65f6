"""Changes that reach a worker which does not write go to the one that does, by a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from ssbhash.serve.source import FixedSource, FolderSource

# When the worker that writes dies, another one takes its place within this time.
_PATIENCE_S = 5.0
_PAUSE_S = 0.1


class NoWriter(RuntimeError):
    """No worker can write now."""


class WriterSocket:
    """The socket of the worker that writes.

    Parameters
    ----------
    path
        The socket; all workers know it. None: there is one worker alone.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path

    @asynccontextmanager
    async def open(self, app: Any, source: FolderSource | FixedSource) -> AsyncIterator[None]:
        """Answer on the socket while this process is the one that writes."""
        if self._path is None:
            yield
            return
        task = asyncio.create_task(self._serve(app, source))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _serve(self, app: Any, source: FolderSource | FixedSource) -> None:
        config = uvicorn.Config(
            app, uds=self._path, lifespan="off", log_config=None, access_log=False
        )
        while True:  # a new index may make another worker the one that writes, and back
            while not source.is_writer:
                await asyncio.sleep(_PAUSE_S)
            server = _InnerServer(config)
            running = asyncio.create_task(server.serve())
            try:
                while source.is_writer:
                    await asyncio.sleep(_PAUSE_S)
            finally:
                server.should_exit = True
                await running

    async def forward(self, request: Request, content: bytes) -> Response:
        """Have the worker that writes answer a request.

        Raises
        ------
        NoWriter
        """
        server = request.scope.get("server")
        if self._path is None or (server is not None and server[1] is None):
            raise NoWriter("another process writes to the index")  # it came by the socket
        names = ("content-type", "authorization", "accept")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        url = httpx.URL("http://writer" + request.url.path, query=request.url.query.encode())
        transport = httpx.AsyncHTTPTransport(uds=self._path)
        async with httpx.AsyncClient(transport=transport, timeout=None) as client:
            for _ in range(int(_PATIENCE_S / _PAUSE_S)):
                try:
                    found = await client.post(url, content=content, headers=headers)
                except httpx.ConnectError:  # nothing was sent: to try again is safe
                    await asyncio.sleep(_PAUSE_S)
                    continue
                except httpx.TransportError as error:
                    raise NoWriter(
                        "the worker that writes ended; whether it made the change is not known"
                    ) from error
                kept = {"content-type": found.headers["content-type"]}
                return Response(found.content, found.status_code, kept)
        raise NoWriter("another process writes to the index")


class _InnerServer(uvicorn.Server):
    """A second server in a process: signals belong to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
