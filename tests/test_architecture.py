"""The house rules that a machine can check: rooms, their doors, and who imports whom."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ssbhash"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module or room may import from the floors below its own, and a room from itself.
FLOORS = (
    ("_version", "arrays", "atomic", "registry"),
    ("threads",),
    ("engines",),
    ("codes", "config", "hamming", "sampling"),
    ("asymmetric", "chunks", "data", "tie_groups"),
    ("index", "metrics"),
    ("interchange", "item_metrics"),
    ("kernels",),
    ("inputs",),
    ("nn",),
    ("training",),
    ("models",),
    ("paper", "tuning"),
    ("cluster",),
    ("serve",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Imported only for tensors on a device.
ON_A_DEVICE = ("ssbhash.engines.cuda", "ssbhash.index.on_device")
NUMPY_ALONE = [name for name, floor in FLOOR_OF.items() if floor < FLOOR_OF["kernels"]]


@dataclass(frozen=True)
class Import:
    """One name that a file imports: `module` alone, or `name` from it."""

    module: str
    name: str | None
    at_import: bool

    @property
    def room(self) -> str:
        """The room, or flat module, of ssbhash that is imported from."""
        return self.module.split(".")[1]


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def room_of(module: str) -> str:
    """`engines` of ssbhash.engines.native, "" of ssbhash itself."""
    return [*module.split("."), ""][1]


def imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import in a file: any form, also relative, by name as a string, or in a function."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        at_import = id(node) in top
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package else -1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in MODULES:  # `from ssbhash import x`, x a module
                    yield Import(inner, None, at_import)
                else:
                    yield Import(base, alias.name, at_import)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield Import(str(argument.value), None, at_import)


def imports_of(module: str) -> list[Import]:
    path = MODULES[module]
    return list(imports(path.read_text(), module, path.name == "__init__.py"))


def inside(found: list[Import]) -> list[Import]:
    """Imports of ssbhash's own modules; the extension belongs to nobody."""
    return [x for x in found if x.module.startswith("ssbhash.") and x.room != "_core"]


@pytest.mark.parametrize(
    ("source", "module", "name"),
    [
        ("import ssbhash.codes", "ssbhash.codes", None),
        ("import ssbhash.nn.losses as l", "ssbhash.nn.losses", None),
        ("from ssbhash import codes", "ssbhash.codes", None),
        ("from ssbhash.codes import pack", "ssbhash.codes", "pack"),
        ("from . import losses", "ssbhash.nn.losses", None),
        ("from .losses import FLOOR", "ssbhash.nn.losses", "FLOOR"),
        ("from ..codes import pack", "ssbhash.codes", "pack"),
        ("def f():\n    from ssbhash import codes", "ssbhash.codes", None),
        ("import importlib\nimportlib.import_module('ssbhash.codes')", "ssbhash.codes", None),
    ],
)
def test_every_form_of_import_is_seen(source: str, module: str, name: str | None) -> None:
    found = [x for x in imports(source, "ssbhash.nn.layers", False) if "ssbhash" in x.module]
    assert [(x.module, x.name) for x in found] == [(module, name)]


def test_every_module_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} <= {*FLOOR_OF, ""}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_down(module: str) -> None:
    own = room_of(module)
    for found in inside(imports_of(module)) if own else ():
        below = FLOOR_OF[found.room] < FLOOR_OF[own]
        assert below or found.room == own, f"{module} imports {found.module}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_are_entered_by_their_door(module: str) -> None:
    pytest.importorskip("torch")  # doors are imported to see what they hand out
    for found in inside(imports_of(module)):
        is_room = PACKAGE.joinpath(found.room).is_dir()
        if is_room and found.room != room_of(module):
            door = importlib.import_module(f"ssbhash.{found.room}")
            name = found.name or found.module.rpartition(".")[2]
            through = found.module.count(".") == (1 if found.name else 2)
            asked = found.module == f"ssbhash.{found.room}" and found.name is None
            assert asked or (through and name in door.__all__), f"{module}: {found}"


@pytest.mark.parametrize("room", sorted({room_of(m) for m in MODULES if m.count(".") > 1}))
def test_no_circle_within_a_room(room: str) -> None:
    files = [m for m in MODULES if room_of(m) == room and m != f"ssbhash.{room}"]
    needs = {m: {x.module for x in imports_of(m)} & set(files) for m in files}
    while free := [m for m, others in needs.items() if not others & set(needs)]:
        for module in free:
            del needs[module]
    assert not needs, "these import one another"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_numpy_half_needs_numpy_alone(module: str) -> None:
    if room_of(module) in [*NUMPY_ALONE, ""]:
        at_import = {x.module.split(".")[0] for x in imports_of(module) if x.at_import}
        assert at_import <= {"ssbhash", "numpy", "numba", "torch", *sys.stdlib_module_names}
        assert "numba" not in at_import or module.startswith("ssbhash.engines.numba")
        assert "torch" not in at_import or module in ON_A_DEVICE


def test_no_name_hides_a_module() -> None:
    pytest.importorskip("torch")
    for module in MODULES:
        if module == "ssbhash.__main__":
            continue
        imported = importlib.import_module(module)
        parent, _, leaf = module.rpartition(".")
        if parent:
            assert getattr(sys.modules[parent], leaf) is imported, module
