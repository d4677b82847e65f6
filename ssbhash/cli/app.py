"""The command line: `ssbhash train | encode | search | evaluate | tune | index | ...`.

Bad input ends with exit status 2 and one line on standard error; Ctrl-C with 130. A further
file of commands adds its functions to `COMMANDS`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ssbhash._version import __version__
from ssbhash.cli import commands, retrieval
from ssbhash.cli.cluster import cluster
from ssbhash.cli.index import groups, index, pairs
from ssbhash.cli.options import Json, Seed
from ssbhash.cli.reproduce import reproduce
from ssbhash.cli.serve import serve
from ssbhash.data import files

# Extras that install the packages which a command may lack.
_EXTRA_OF = {"numba": "numba", "faiss": "faiss", "pyarrow": "test", "optuna": "tune", "ray": "ray"}
_EXTRA_OF |= dict.fromkeys(("fastapi", "uvicorn", "prometheus_client", "httpx"), "serve")


class OneLineErrors(TyperGroup):
    """Commands whose errors are one line, with exit status 2 (130 after Ctrl-C).

    SSBHASH_TRACEBACK=1 shows the traceback instead.
    """

    def main(self, args: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Run; always ends with SystemExit."""
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        options["standalone_mode"] = False
        try:
            status = super().main(args, **options)
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(130)
        except Exception as error:
            line = _line_of(error)
            if line is None or os.environ.get("SSBHASH_TRACEBACK"):
                raise
            print(f"ssbhash: error: {line}", file=sys.stderr)
            _drop_output()
            sys.exit(2)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A reader that closes the pipe early, such as head, is no error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            return 0
        return result


def _drop_output() -> None:
    """Keep Python from flushing, at its end, what standard output did not accept."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line_of(error: Exception) -> str | None:
    """Say in one line what was wrong with the input; None if it is no such error."""
    if hasattr(error, "format_message"):  # click's errors, whichever click typer has
        line = str(error.format_message())
    elif isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        extra = _EXTRA_OF.get(package, "train")
        line = f"this needs {package}: pip install 'ssbhash[{extra}]'"
    elif isinstance(error, OSError):
        # All files name themselves; what is left is the standard output.
        place = "standard output" if error.filename is None else error.filename
        line = f"{place}: {error.strerror}" if error.strerror else str(error)
    elif isinstance(error, MemoryError):
        line = f"out of memory: {error}"
    elif isinstance(error, ValueError | TypeError | RuntimeError):
        line = str(error) or type(error).__name__
    else:
        return None
    return " ".join(line.split())


application = typer.Typer(
    cls=OneLineErrors,
    help="Learn binary codes from a few labels, then search them exactly, fast.",
    epilog=f"Data files: {files.FORMATS}. Codes: .npy, uint8.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ssbhash {__version__}")
        raise typer.Exit


@application.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def info(as_json: Json = False) -> None:
    """Tell the version, engines, instruction set, threads."""
    from ssbhash.config import config, show_config

    if as_json:
        print(json.dumps(config()))
    else:
        show_config()


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for picture and model.")] = Path(
        "ssbhash-demo"
    ),
    bits: Annotated[int, typer.Option(help="Length of the codes.", min=1)] = 32,
    codes: Annotated[int, typer.Option(help="Codes in the blown-up database.", min=1)] = 1_000_000,
    epochs: Annotated[int | None, typer.Option(help="Passes over the items.", min=1)] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """See it work on 1,797 hand-written digits, 10% labelled.

    Trains the methods and what they must beat, searches a million codes beside
    faiss, and writes a picture and the model. Nothing is downloaded.
    """
    from ssbhash.cli import demo as digits

    files.check_folder(out)

    def tell(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    report = digits.run(out, n_bits=bits, n_codes=codes, n_epochs=epochs, seed=seed, tell=tell)
    if as_json:
        print(json.dumps(report))


COMMANDS = (
    *(commands.train, retrieval.encode, retrieval.search, retrieval.evaluate),
    *(commands.tune, pairs, groups, info, demo, reproduce, serve),
)
for command in COMMANDS:
    application.command()(command)
application.add_typer(index, name="index")
application.add_typer(cluster, name="cluster")
