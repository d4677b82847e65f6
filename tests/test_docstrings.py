"""Public functions, methods and classes have full numpydoc sections."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

# Modules whose public names are for users; a room is entered by its door.
MODULES = (
    "ssbhash",
    "ssbhash.asymmetric",
    "ssbhash.codes",
    "ssbhash.cluster",
    "ssbhash.data",
    "ssbhash.interchange",
    "ssbhash.item_metrics",
    "ssbhash.metrics",
    "ssbhash.models",
    "ssbhash.serve",
    "ssbhash.tuning",
)
# Bases of the estimators, which their examples show; and what needs a cluster, or does not return.
WITHOUT_EXAMPLE = (
    "ssbhash.cluster.building.build",
    "ssbhash.serve.server.run",
    "ssbhash.models.base.ClassifyingHasher",
    "ssbhash.models.classifying.PartlyLabelledClassifier",
)
SECTIONS = ("Parameters", "Returns", "Yields", "Attributes", "Raises", "Notes", "Examples")


def public_objects(module: Any) -> Iterator[Any]:
    """The functions and classes that a module hands out, and the classes they inherit from."""
    own = [name for name, value in vars(module).items() if module.__name__ == origin(value)]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from (base for base in value.__mro__ if origin(base).startswith("ssbhash"))
        elif inspect.isfunction(value):
            yield value


def origin(value: Any) -> str:
    return str(getattr(value, "__module__", ""))


def public_members(module: Any) -> dict[str, Any]:
    """By dotted name, also the methods that classes define themselves."""
    found: dict[str, Any] = {}
    for value in public_objects(module):
        if not value.__name__.startswith("_"):
            found[f"{value.__module__}.{value.__qualname__}"] = value
        for name, member in vars(value).items() if inspect.isclass(value) else ():
            method = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if inspect.isfunction(method) and not name.startswith("_"):
                found[f"{value.__module__}.{value.__qualname__}.{name}"] = method
    return found


def every_member() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in MODULES:
        try:
            found |= public_members(importlib.import_module(name))
        except ModuleNotFoundError:  # an extra that is not installed
            continue
    return found


def sections(text: str) -> dict[str, str]:
    """The numpydoc sections of a docstring by title."""
    titles = "|".join(SECTIONS)
    parts = re.split(rf"^({titles})\n-+\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(member: Any) -> set[str]:
    """Names at the head of each entry: `a, b : type`; `...` stands for those of base classes."""
    text = sections(inspect.getdoc(member) or "")
    entries = text.get("Parameters", "")
    if inspect.isclass(member):
        entries += text.get("Attributes", "")
    heads = [line.split(" : ")[0] for line in entries.splitlines() if re.match(r"[\w*.]", line)]
    names = {name.strip(" *") for head in heads for name in head.split(",")}
    return names.union(*map(described, member.__bases__)) if "..." in names else names


@pytest.mark.parametrize(("name", "member"), every_member().items(), ids=every_member())
def test_sections_are_complete(name: str, member: Any) -> None:
    text = sections(inspect.getdoc(member) or "")
    parameters = inspect.signature(member).parameters
    wanted = {one for one in parameters if one not in ("self", "cls") and not one.startswith("_")}
    missing = wanted - described(member)
    assert not missing, f"Parameters: {sorted(missing)}"
    if inspect.isfunction(member):
        returned = inspect.signature(member).return_annotation
        assert returned in ("None", None) or {"Returns", "Yields"} & set(text), "Returns"
        assert "raise " not in inspect.getsource(member) or "Raises" in text, "Raises"
    is_method = inspect.isfunction(member) and "." in member.__qualname__
    is_error = inspect.isclass(member) and issubclass(member, BaseException)
    assert is_method or is_error or name in WITHOUT_EXAMPLE or "Examples" in text, "Examples"
