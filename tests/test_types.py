"""Types: of the public functions as mypy reads them, and of the extension as it was built."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ssbhash
from ssbhash.engines import available, get, native_module
from ssbhash.engines.engine import Engine

pytest.importorskip("mypy")
TESTS = Path(__file__).parent
PACKAGE = Path(ssbhash.__file__).parent
# mypy finds an installed package by itself, and refuses to be told of its folder.
MYPYPATH = "" if "site-packages" in PACKAGE.parts else str(PACKAGE.parent)
needs_native = pytest.mark.skipif(native_module() is None, reason="the extension is not built")


def run(module: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "MYPYPATH": MYPYPATH},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.slow
def test_numpy_in_numpy_out_and_torch_in_torch_out(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    check = str(TESTS / "typing" / "public_api.py")
    options = ("--strict", "--follow-imports=silent", "--ignore-missing-imports")
    assert run("mypy", *options, check, folder=tmp_path) == ""


@needs_native
@pytest.mark.slow
def test_the_stub_has_all_that_the_extension_has(tmp_path: Path) -> None:
    # pybind11's own: a metaclass, and attributes of each module and class.
    allowed = tmp_path / "allowed"
    own = (r"ssbhash\._core\..*__.*__", r"ssbhash\._core\._.*", r"ssbhash\._core\.[A-Z]\w*")
    allowed.write_text("\n".join(own))
    options = ("--ignore-disjoint-bases", "--allowlist", str(allowed), "--ignore-unused-allowlist")
    assert run("mypy.stubtest", "ssbhash._core", *options, folder=tmp_path) == ""


def declared() -> dict[str, list[str]]:
    """Names of the parameters of each function and method of the stub."""
    found = {}
    for node in ast.parse((PACKAGE / "_core.pyi").read_text()).body:
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in functions:
            if isinstance(function, ast.FunctionDef) and not function.decorator_list:
                names = [x.arg for x in (*function.args.args, *function.args.kwonlyargs)]
                found[prefix + function.name] = names
    return found


@needs_native
@pytest.mark.parametrize(("name", "parameters"), declared().items(), ids=declared())
def test_the_stub_names_the_parameters_as_the_extension(name: str, parameters: list[str]) -> None:
    """stubtest cannot see them: pybind11 writes signatures into docstrings alone."""
    function = native_module()
    for part in name.split("."):
        function = getattr(function, part)
    signature = inspect.getdoc(function).splitlines()[0]
    built = re.findall(r"(?:\(|, )(\w+): ", re.sub(r"\[[^()]*?\]", "", signature))
    assert [x for x in built if x != "self"] == [x for x in parameters if x != "self"], signature


def test_no_function_of_the_extension_takes_more_than_a_handful_of_positional_arguments() -> None:
    for node in ast.walk(ast.parse((PACKAGE / "_core.pyi").read_text())):
        if isinstance(node, ast.FunctionDef):
            names = [x.arg for x in node.args.args if x.arg != "self"]
            assert len(names) <= 5, f"{node.name}: {names}"


@pytest.mark.parametrize("name", available())
def test_engines_have_the_functions_of_the_protocol(name: str) -> None:
    """Names and order of parameters; mypy compares the types in `ssbhash.engines`."""
    for function, of_protocol in inspect.getmembers(Engine, inspect.isfunction):
        if not function.startswith("_"):
            wanted = [x for x in inspect.signature(of_protocol).parameters if x != "self"]
            assert [*inspect.signature(getattr(get(name), function)).parameters] == wanted
