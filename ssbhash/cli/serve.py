"""The command that serves an index over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssbhash.cli.options import IdField, Threads

Keys = Annotated[
    str,
    typer.Option(envvar="SSBHASH_READ_KEYS", help="Keys that may read, with blanks between them."),
]
WriteKeys = Annotated[
    str,
    typer.Option(envvar="SSBHASH_WRITE_KEYS", help="Keys that may write, and read."),
]


def serve(
    folder: Annotated[Path, typer.Argument(help="The index, or a symbolic link to it.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model that encodes what is asked.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes; one of them writes.", min=1)] = 1,
    items: Annotated[
        Path | None, typer.Option(help="Items that the codes were made of, for the page.")
    ] = None,
    id_field: IdField = None,
    thumbnails: Annotated[
        Path | None, typer.Option(help="Folder of pictures ID.png, for the page.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Add and remove nothing.")] = False,
    read_keys: Keys = "",
    write_keys: WriteKeys = "",
    max_body_mb: Annotated[int, typer.Option(help="Body of a request at most.", min=1)] = 64,
    max_k: Annotated[int, typer.Option(help="Neighbours of a query at most.", min=1)] = 1000,
    max_rows: Annotated[
        int, typer.Option(help="Queries, or items, of a request at most.", min=1)
    ] = 100_000,
    timeout: Annotated[float, typer.Option(help="Seconds of a request at most.")] = 10.0,
    gather_us: Annotated[
        float,
        typer.Option(
            help="Microseconds between looks while small searches gather; 0: never.", min=0
        ),
    ] = 200.0,
    threads: Threads = None,
) -> None:
    """Serve an index over HTTP, with a page for browsers at /.

    Keys are best given by the environment, where other users do not see them.
    """
    from ssbhash.serve import Settings, run

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    settings = Settings(
        folder=str(folder),
        model=text(model),
        items=text(items),
        id_field=id_field,
        thumbnails=text(thumbnails),
        read_keys=tuple(read_keys.split()),
        write_keys=tuple(write_keys.split()),
        writes=not read_only,
        max_body_bytes=max_body_mb << 20,
        max_k=max_k,
        max_rows=max_rows,
        timeout_s=timeout,
        gather_us=gather_us,
        n_threads=threads,
    )
    run(settings, host=host, port=port, workers=workers)
