"""The HTTP application: routes, content types, keys, statuses; `service.py` does the work."""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic_core import to_json
from starlette.types import Message, Receive, Scope, Send

from ssbhash._version import __version__
from ssbhash.codes import to_hex
from ssbhash.serve import bodies, examples, metrics
from ssbhash.serve.bodies import Asked
from ssbhash.serve.knowledge import Catalogue, Encoder
from ssbhash.serve.limits import time_limit
from ssbhash.serve.service import Known, Lists, Service
from ssbhash.serve.settings import Settings
from ssbhash.serve.source import FixedSource, FolderSource, Index, ShardedSource, is_sharded
from ssbhash.serve.writer import NoWriter, WriterSocket

PAGE = Path(__file__).parent / "page"
# A larger body is read and written on a thread, not to keep the others waiting.
_LARGE = 1 << 16
_STATUS = {
    bodies.Malformed: 400,
    PermissionError: 403,
    KeyError: 404,
    bodies.UnknownAnswer: 406,
    Known: 409,
    bodies.UnknownType: 415,
    NoWriter: 503,
    TimeoutError: 504,
    ValueError: 422,
    TypeError: 422,
}
_PROBLEMS: dict[int, str] = {
    400: "The body is not in the form that its Content-Type says.",
    401: "A key is needed.",
    403: "The key does not allow this.",
    404: "An id is not in the index.",
    406: "No such form of answers.",
    408: "The body came too slowly.",
    409: "An id is in the index already.",
    413: "The body is too large.",
    415: "No such form of bodies.",
    422: "A field is wrong, or beyond a limit.",
    503: "No worker can write now.",
    504: "It took too long.",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

_SCHEME = HTTPBearer(auto_error=False, description="An API key.")
Allow = Callable[[Request], None]
Answer = Callable[[Any, Asked, str], Awaitable[bytes]]


def create_app(
    index: Index | None = None, *, model: Any = None, settings: Settings | None = None
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    index : HammingIndex or ShardedIndex, optional
        What to serve; by default the index in `settings.folder`, opened at the start.
    model : optional
        What `ssbhash.load` returns; by default the model in `settings.model`.
    settings : Settings, optional
        Keys and limits.

    Returns
    -------
    FastAPI
        An ASGI application, for uvicorn or any other server.

    Raises
    ------
    ValueError
        If there is nothing to serve.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.serve import create_app
    >>> index = ssbhash.HammingIndex(n_bits=8)
    >>> _ = index.add(np.arange(5, dtype=np.uint8)[:, None])
    >>> app = create_app(index)
    >>> app.title
    'ssbhash'
    """
    settings = settings or Settings()
    if index is None and settings.folder is None:
        raise ValueError("give an index, or settings with the folder of one")

    def open_all() -> Service:
        encoder = None
        if model is not None:
            encoder = Encoder(model)
        elif settings.model is not None:
            encoder = Encoder.load(settings.model)
        n_bits = None if encoder is None else encoder.n_bits
        source: FixedSource | FolderSource
        if index is not None:
            source = FixedSource(index, n_bits)
        elif is_sharded(settings.folder or ""):
            source = ShardedSource(
                settings.folder or "", timeout_s=settings.timeout_s, n_bits=n_bits
            )
        else:
            source = FolderSource(settings.folder or "", writes=settings.writes, n_bits=n_bits)
        catalogue = Catalogue(
            settings.items, id_field=settings.id_field, thumbnails=settings.thumbnails
        )
        return Service(source, encoder, catalogue, settings)

    socket = WriterSocket(settings.socket)

    @asynccontextmanager
    async def life(app: _Application) -> AsyncIterator[None]:
        service = await asyncio.to_thread(open_all)
        app.service = service
        await service.start()
        # A full collection took 35 ms, in which nobody was answered. Now it leaves out what is here.
        gc.collect()
        gc.freeze()
        try:
            async with socket.open(app, service.source):
                yield
        finally:
            await service.stop()

    app = _Application(
        title="ssbhash",
        version=__version__,
        summary="Exact search among binary codes.",
        description="Forms of bodies and answers, keys and limits: docs/serving.md.",
        lifespan=life,
        docs_url=None,  # these pages load from elsewhere
        redoc_url=None,
    )
    _add_routes(app, settings, socket)
    return app


class _Application(FastAPI):
    """FastAPI that counts requests, and adds the headers that keep browsers safe.

    It answers the questions itself, and FastAPI documents them. The layers of FastAPI take
    longer than a question and add nothing to it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.service: Service  # from the start of the application
        self.questions: dict[str, Callable[[Request], Awaitable[Response]]] = {}
        self._headers = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        came_by_socket = scope["type"] == "http" and (scope.get("server") or "--")[1] is None
        if scope["type"] != "http" or came_by_socket:  # counted by the worker that it came from
            await super().__call__(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        path = scope["path"]
        respond = self.questions.get(path) if scope["method"] == "POST" else None
        try:
            if respond is None:
                await super().__call__(scope, receive, sent)
                path = getattr(scope.get("route"), "path", "other")
            else:
                await self._answer(respond, scope, receive, sent)
        finally:
            metrics.count(path, status, time.perf_counter() - started)

    async def _answer(
        self,
        respond: Callable[[Request], Awaitable[Response]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            response = await respond(Request(scope, receive))
        except HTTPException as error:
            problem = {"detail": error.detail}
            response = JSONResponse(problem, error.status_code, dict(error.headers or {}))
        await response(scope, receive, send)


class _Answer(Response):
    """A body with its type. Starlette takes 5 microseconds for headers that are known."""

    def __init__(self, body: bytes, form: str) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [
            (b"content-type", form.encode()),
            (b"content-length", b"%d" % len(body)),
        ]


def _add_routes(app: _Application, settings: Settings, socket: WriterSocket) -> None:
    may_read, may_write = _keys(settings)

    async def reader(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)]
    ) -> None:
        may_read(request)

    reads = Depends(reader)

    def post(
        path: str, body: type[Any], answer: type[Any], forms: tuple[str, ...] = (bodies.JSON,)
    ) -> Callable[[Answer], Answer]:
        """Add a route that reads a body of any form and answers in one of `forms`."""
        changes = body in (bodies.Add, bodies.Remove)
        allow = may_write if changes else may_read

        def add(function: Answer) -> Answer:
            async def respond(request: Request) -> Response:
                allow(request)
                content = await _content(request, settings)
                if changes and not app.service.source.is_writer:
                    return await _forwarded(socket, request, content)
                try:
                    form = bodies.wanted_form(request.headers.get("accept", ""), forms)
                    kind = request.headers.get("content-type", "")
                    read = partial(bodies.read, body, content, kind, lambda: request.query_params)
                    is_large = len(content) >= _LARGE
                    options, asked = await asyncio.to_thread(read) if is_large else read()
                    return _Answer(await function(options, asked, form), form)
                except tuple(_STATUS) as error:
                    raise _problem(error) from error

            example, answered = examples.OF[path]
            content: dict[str, Any] = {
                bodies.JSON: {"schema": body.model_json_schema(), "examples": example}
            }
            binary = {"schema": {"type": "string", "format": "binary"}}
            content |= {bodies.NPY: binary, bodies.ARROW: binary}
            content_of_answer = dict.fromkeys(forms[1:], binary)
            app.post(
                path,
                name=function.__name__,
                summary=(function.__doc__ or "").strip().rstrip("."),
                response_model=answer,
                responses={
                    200: {"content": {bodies.JSON: {"example": answered}} | content_of_answer},
                    **_problems(*(() if not changes else (409, 503))),
                },
                openapi_extra={
                    "requestBody": {"required": True, "content": content},
                    "parameters": _parameters(body),
                    "security": [{_SCHEME.scheme_name: []}],
                },
            )(respond)
            app.questions[path] = respond
            return function

        return add

    every = (bodies.JSON, bodies.NPY, bodies.ARROW)

    @post("/encode", bodies.Encode, bodies.Codings)
    async def encode(_: bodies.Encode, asked: Asked, form: str) -> bytes:
        """Turn texts or vectors into codes, or look up the codes of ids."""
        codes, classes = await app.service.encode(asked)
        found = {"codes": to_hex(codes), "n_bits": app.service.index.n_bits, "classes": classes}
        return to_json(found)

    async def neighbours(form: str, ids: Lists, distances: Lists) -> bytes:
        write = partial(bodies.write, form, {"ids": ids, "distances": distances})
        is_large = sum(len(part) for part in ids) >= _LARGE // 64
        return await asyncio.to_thread(write) if is_large else write()

    @post("/search", bodies.Search, bodies.Neighbours, every)
    async def search(options: bodies.Search, asked: Asked, form: str) -> bytes:
        """Find the nearest items of each query, exactly."""
        distances, ids = await app.service.search(asked, options.k, options.max_distance)
        return await neighbours(form, ids, distances)

    @post("/within", bodies.Within, bodies.Neighbours, every)
    async def within(options: bodies.Within, asked: Asked, form: str) -> bytes:
        """Find all items within a radius of each query."""
        distances, ids = await app.service.within(asked, options.radius)
        return await neighbours(form, ids, distances)

    @post("/histogram", bodies.Encode, bodies.Histogram)
    async def histogram(_: bodies.Encode, asked: Asked, form: str) -> bytes:
        """Count the items at each distance from one query."""
        counts = (await app.service.histogram(asked)).tolist()
        return to_json({"counts": counts, "n": sum(counts)})

    @post("/items", bodies.Chosen, bodies.Described)
    async def items(_: bodies.Chosen, asked: Asked, form: str) -> bytes:
        """Describe items: code, text, label, picture, class probabilities."""
        return to_json({"items": await app.service.describe(asked.ids)})

    @post("/add", bodies.Add, bodies.Added)
    async def add(options: bodies.Add, asked: Asked, form: str) -> bytes:
        """Add items; they are on the disk when the answer comes."""
        ids = await app.service.add(asked, options.ids)
        return to_json({"ids": list(ids) if isinstance(ids, list) else ids.tolist()})

    @post("/remove", bodies.Remove, bodies.Removed)
    async def remove(_: bodies.Remove, asked: Asked, form: str) -> bytes:
        """Remove items, all or none."""
        await app.service.remove(asked.ids)
        return to_json({"n_removed": len(set(asked.ids))})

    @app.get("/stats", dependencies=[reads], responses=_problems())
    async def stats() -> dict[str, Any]:
        """Return the numbers of items and bytes, the model and the limits."""
        return await asyncio.to_thread(app.service.stats)

    @app.get("/health")
    async def health() -> dict[str, bool]:
        """Tell whether the process answers."""
        return {"healthy": True}

    @app.get("/ready", responses=_problems(503, only=True))
    async def ready() -> dict[str, Any]:
        """Tell whether the index in the folder is the one that is served."""
        if not app.service.source.is_sound:
            raise HTTPException(503, "the folder cannot be read; the state before answers")
        return {"ready": True}

    @app.get(
        "/metrics",
        dependencies=[reads],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_problems()},
    )
    async def figures() -> Response:
        """Return metrics for Prometheus."""
        return Response(metrics.text(), media_type=metrics.CONTENT_TYPE_LATEST)

    @app.get("/thumbnails/{name}", dependencies=[reads], include_in_schema=False)
    async def thumbnail(name: str) -> FileResponse:
        path = app.service.catalogue.picture(name)
        if path is None:
            raise HTTPException(404, f"there is no picture of {name}")
        return FileResponse(path, headers={"Cache-Control": "max-age=3600"})

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _keys(settings: Settings) -> tuple[Allow, Allow]:
    """Make the functions that let readers and writers in, by the Authorization header."""
    readers = [key.encode() for key in (*settings.read_keys, *settings.write_keys)]
    writers = [key.encode() for key in settings.write_keys]

    def is_one_of(header: str | None, keys: list[bytes]) -> bool:
        scheme, _, key = (header or "").partition(" ")
        is_bearer = scheme.lower() == "bearer"
        found = [secrets.compare_digest(key.strip().encode(), one) for one in keys]
        return is_bearer and any(found)

    def require(request: Request) -> None:
        header = request.headers.get("authorization")
        if not is_one_of(header, readers):
            what = "a key is needed" if header is None else "this key is not known"
            raise HTTPException(
                401, f"{what}: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
            )

    def may_read(request: Request) -> None:
        if settings.read_keys:
            require(request)

    def may_write(request: Request) -> None:
        if not settings.writes:
            raise HTTPException(403, "this service only reads")
        if readers:
            require(request)
            if not is_one_of(request.headers.get("authorization"), writers):
                raise HTTPException(403, "this key may only read")

    return may_read, may_write


async def _content(request: Request, settings: Settings) -> bytes:
    """Read a body that is neither too large nor too slow."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > settings.max_body_bytes:
        raise _too_large(settings)
    parts, n_bytes = [], 0
    try:
        async with time_limit(settings.timeout_s):
            async for part in request.stream():
                n_bytes += len(part)
                if n_bytes > settings.max_body_bytes:
                    raise _too_large(settings)
                parts.append(part)
    except TimeoutError:
        raise HTTPException(
            408, f"the body took more than {settings.timeout_s:g} seconds", {"Connection": "close"}
        ) from None
    return b"".join(parts)


def _too_large(settings: Settings) -> HTTPException:
    return HTTPException(413, f"a body takes {settings.max_body_bytes} bytes at most")


async def _forwarded(socket: WriterSocket, request: Request, content: bytes) -> Response:
    try:
        return await socket.forward(request, content)
    except NoWriter as error:
        raise _problem(error) from error


def _problem(error: Exception) -> HTTPException:
    status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
    detail = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if isinstance(error, TimeoutError):
        detail = str(error) or "this took too long; ask for less"
    return HTTPException(status, detail, {"Retry-After": "1"} if status == 503 else None)


def _problems(*more: int, only: bool = False) -> dict[int | str, dict[str, Any]]:
    usual = () if only else (400, 401, 403, 404, 406, 408, 413, 415, 422, 504)
    return {
        status: {"description": _PROBLEMS[status], "model": bodies.Problem}
        for status in sorted((*usual, *more))
    }


def _parameters(body: type[Any]) -> list[dict[str, Any]]:
    """Describe the options that stand in the query string beside a binary body."""
    schema = body.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "With a binary body; in JSON it is a field.",
            "schema": {"type": "integer", "minimum": about.get("minimum", 0)},
        }
        for name, about in schema["properties"].items()
        if name in ("k", "max_distance", "radius")
    ]
