"""The house rules that a machine can check: who imports whom, and how long things get."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ssbhash"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import modules of lower rank, or its own. The right half (rank <= 4)
# needs numpy alone.
RANKS = {
    "_version": 0,
    "arrays": -1,
    "database": 0,
    "label_names": 0,
    "backends": 1,
    "threads": 1,
    "codes": 2,
    "config": 3,
    "sampling": 2,
    "search": 2,
    "index": 3,
    "asymmetric": 3,
    "files": 3,
    "tie_groups": 3,
    "metrics": 4,
    "text": 5,
    "shards": 5,
    "checkpoint": 5,
    "labels": 5,
    "hedging": 5,
    "nn": 6,
    "processes": 7,
    "parameters": 8,
    "storage": 5,
    "model": 7,
    "optimizer": 8,
    "training": 9,
    "estimator": 10,
    "hashers": 11,
    "baselines": 11,
    "validation": 11,
    "study": 12,
    "tuning": 13,
    "datasets": 12,
    "pipeline": 12,
    "experiments": 13,
    "demo": 13,
    "report": 14,
    "reproduce": 15,
    "commands": 15,
    "cli": 16,
    "__main__": 17,
}
TORCH_FREE = [name for name, rank in RANKS.items() if rank <= 4]


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, at import time?) for every import in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from ((name, id(node) in top) for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = module_of(path)
    if own == "__init__":
        return
    for name, _ in imports(path):
        if name.startswith("ssbhash."):
            other = name.split(".")[1]
            if other != "_core":
                assert other == own or RANKS[other] < RANKS[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_search_half_needs_no_torch(path: Path) -> None:
    if module_of(path) in [*TORCH_FREE, "__init__"]:
        at_import = {name.split(".")[0] for name, top in imports(path) if top}
        assert not at_import & {"torch", "sklearn", "scipy"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 440, "split the module"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            docstring = ast.get_docstring(node, clean=False) or ""
            body = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert body <= 55, f"{node.name} has {body} lines beside its docstring"
