"""The README's Python examples run as they stand."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_readme_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for example in EXAMPLES:
        exec(example, scope)  # noqa: S102
    assert (tmp_path / "digits-model" / "config.json").is_file()
    assert scope["distances"].shape == scope["ids"].shape  # type: ignore[attr-defined]


def test_readme_has_exactly_two_set_up_commands() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README.read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("ssbhash demo")
    assert commands[1].endswith("pytest")
