"""`python -m ssbhash` and the console script: the command line, if it is installed."""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> int:
    """Run the command line; return its exit status."""
    _prepare_streams()
    try:
        from ssbhash.cli import application
    except ModuleNotFoundError as missing:
        if missing.name != "typer":
            raise
        return _without_typer(sys.argv[1:])
    try:
        # `ssbhash/__init__.py` has let Ctrl-C end the process while modules were read.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        application()
    except KeyboardInterrupt:  # before typer has begun to catch it
        return 128 + signal.SIGINT
    return 0


def _prepare_streams() -> None:
    """Open what the caller has closed, and write UTF-8 whatever the locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def _without_typer(arguments: list[str]) -> int:
    """Answer `info` and `--version` without typer."""
    if arguments in (["info"], ["--version"]):
        from ssbhash import __version__, show_config

        show_config() if arguments == ["info"] else print(f"ssbhash {__version__}")
        return 0
    message = "ssbhash: error: the command line needs typer: pip install 'ssbhash[cli]'"
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
