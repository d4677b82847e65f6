"""The transcript in docs/cli.md is what the commands print.

    python tests/test_cli_page.py

writes it anew. Seconds, versions and what depends on the machine's arithmetic may differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "cli.md"


def transcript() -> re.Match[str]:
    found = re.search(r"## A transcript\n(.*?)(?=\n## )", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found


def run(command: str, folder: Path) -> str:
    """Run a line in a shell that finds the ssbhash under test; return what a terminal shows."""
    script = folder / "bin" / "ssbhash"
    if not script.exists():
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ssbhash "$@"\n')
        script.chmod(0o755)
    env = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>&1"],
        cwd=folder, env=env, stdout=subprocess.PIPE, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.stdout


def played(folder: Path) -> str:
    """Run the commands of the transcript one after the other, and write what they print."""
    for name in ("notes.csv", "questions.csv"):
        shutil.copy(DOCS / name, folder / name)

    def block(match: re.Match[str]) -> str:
        commands = re.findall(r"^\$ .*$", match[1], re.MULTILINE)
        shown = [f"{command}\n{run(command[2:], folder)}" for command in commands]
        return "```console\n" + "".join(shown) + "```"

    return re.sub(r"```console\n(.*?)```", block, transcript()[1], flags=re.DOTALL)


def what_must_agree(text: str) -> list[str]:
    """Lines without figures, and without the texts that were found."""
    lines = [re.sub(r"^  \S.*", "  a text", line) for line in text.splitlines()]
    return [re.sub(r"\d+(\.\d+)?(e-\d+)?|[nq]\d+", "#", line) for line in lines]


@pytest.mark.slow
def test_the_transcript_is_what_the_commands_print(tmp_path: Path) -> None:
    for module in ("typer", "torch"):
        pytest.importorskip(module)
    found = played(tmp_path)
    assert "Traceback" not in found
    assert what_must_agree(found) == what_must_agree(transcript()[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        new = played(Path(name))
    start, end = transcript().span(1)
    page = PAGE.read_text()
    PAGE.write_text(page[:start] + new + page[end:])
