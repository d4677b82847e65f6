"""What the compiler made of the instruction sets: object files of the last build here."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BUILDS = Path(__file__).parent.parent / "build"
# The registers that only files of an instruction set may touch.
REGISTERS = {"avx2": "ymm", "avx512": "zmm"}
OBJECTS = [
    path
    for path in sorted(BUILDS.glob("*/CMakeFiles/ssbhash_core.dir/csrc/core/**/*.o"))
    if "cpp-tests" not in str(path)
]


def isa_of(path: Path) -> str:
    """The set that isa/SET.cpp is compiled for; empty for all else."""
    return path.name.split(".")[0] if path.parent.name == "isa" else ""


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not OBJECTS, reason="no build folder here")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_no_vector_instruction_outside_its_file(path: Path) -> None:
    listing = tool("objdump", "-d", "--no-show-raw-insn", str(path))
    if "x86-64" not in listing.splitlines()[1]:
        pytest.skip("not an x86-64 object")
    registers = REGISTERS.get(isa_of(path))
    if registers is None:
        # every AVX mnemonic begins with a v; verr and verw are no vector instructions
        found = re.findall(r"\t(v(?!err|erw)[a-z0-9]+ .*)", listing) + re.findall(
            r"\t(popcnt .*)", listing
        )
        assert not found, f"{path.name} needs more than the baseline: {found[:3]}"
    else:
        assert registers in listing, f"{path.name} does not use what it is compiled for"
    if isa_of(path) == "avx2":
        assert "zmm" not in listing
    if isa_of(path) == "avx512":  # full adders are two three-input operations
        assert listing.count("vpternlog") > 500


@pytest.mark.skipif(not OBJECTS, reason="no build folder here")
@pytest.mark.parametrize(
    "path", [path for path in OBJECTS if isa_of(path) in REGISTERS], ids=lambda path: path.name
)
def test_no_shared_template_in_an_instruction_sets_file(path: Path) -> None:
    """The linker keeps one copy of a weak symbol: it must not be one with AVX in it."""
    weak = [line for line in tool("nm", "-C", str(path)).splitlines() if " W " in line]
    assert not weak
