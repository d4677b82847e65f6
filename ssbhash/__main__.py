"""`python -m ssbhash` and the console script: the command line, if it is installed."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; return its exit status."""
    try:
        from ssbhash.cli import application
    except ModuleNotFoundError as missing:
        if missing.name != "typer":
            raise
        print(
            "ssbhash: error: the command line needs typer: pip install 'ssbhash[cli]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    application()
    return 0


if __name__ == "__main__":
    sys.exit(main())
