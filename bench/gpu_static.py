"""What the compiler says about the CUDA kernels: needs nvcc and cuobjdump, no GPU.

`python bench/gpu_static.py` compiles for several devices, with warnings as errors, and prints:

- registers, spills and stack of each kernel;
- for the inner loop of 64-bit search, by planes and by population counts, the instructions for
  each code and query;
- how many codes a multiprocessor could search in a clock if only its slowest unit counted. This
  is an estimate from NVIDIA's tables of rates, not a measurement.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "csrc"
DEVICES = (75, 80, 90, 100)
FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-fmad=false", "-Werror", "all-warnings"]

# Results of a clock and multiprocessor (CUDA C++ programming guide, arithmetic instructions):
# the same for 7.5 to 10.0.
LOGIC_RATE, POPC_RATE, ISSUE_RATE, SHARED_BYTES = 64, 16, 128, 128
LOGIC = [
    "LOP3",
    "SHF",
    "PRMT",
    "LEA",
    "ISETP",
    "SEL",
    "IADD3",
    "IADD",
    "VIADD",
    "VIADDMNMX",
    "PLOP3",
    "VIMNMX",
    "IMNMX",
]


@dataclass
class Kernel:
    """A kernel on one device, as ptxas reports it."""

    device: int
    name: str
    registers: int
    stack: int
    spills: int


def find(tool: str) -> str | None:
    """Return the path of a tool: on the PATH, of a toolkit, or of an installed NVIDIA package."""
    packages = [path for entry in sys.path for path in Path(entry).glob("nvidia/cu*/bin")]
    for folder in [None, "/usr/local/cuda/bin", *packages]:
        if path := shutil.which(tool, path=None if folder is None else str(folder)):
            return path
    return None


def compile_for(devices: tuple[int, ...], source: str, to: Path) -> list[Kernel]:
    """Compile csrc/cuda/`source` into an object, with the code of the last device as PTX too."""
    targets = [f"-gencode=arch=compute_{d},code=sm_{d}" for d in devices]
    targets.append(f"-gencode=arch=compute_{devices[-1]},code=compute_{devices[-1]}")
    command = [find("nvcc") or "nvcc", *FLAGS, *targets, "--threads=0", "-Xptxas=-v"]
    command += ["-Xcompiler=-Wall,-Wextra,-Werror,-Wno-unknown-pragmas"]
    command += ["-I", str(SOURCES), "-c", str(SOURCES / "cuda" / source), "-o", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    kernels = []
    report = re.finditer(
        r"entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill "
        r"stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    for name, device, stack, stores, loads, registers in (match.groups() for match in report):
        kernels.append(
            Kernel(int(device), short(name), int(registers), int(stack), int(stores) + int(loads))
        )
    return kernels


def short(mangled: str) -> str:
    """Return a kernel's name and numbers from its mangled name."""
    name = re.search(
        r"(scan_planes|scan_rows|transpose_rows|set_queries|all_distances|draw|above|relax)(I\S*)?",
        mangled,
    )
    assert name is not None, mangled
    arguments = re.findall(r"L[ib](\d+)E|(B?Float\d+)", (name[2] or "").split("EEv")[0] + "E")
    return f"{name[1]}<{','.join(a or b for a, b in arguments)}>" if arguments else name[1]


def inner_loops(binary: Path, device: int) -> dict[str, list[str]]:
    """Return the instructions of the inner loop of each scan of 64-bit codes."""
    command = [find("cuobjdump") or "cuobjdump", "--dump-sass", f"--gpu-architecture=sm_{device}"]
    listing = subprocess.run([*command, str(binary)], capture_output=True, text=True, check=True)
    loops = {}
    for function in listing.stdout.split("Function : ")[1:]:
        mangled = function.split("\n", 1)[0]
        if re.search(r"scan_planesI\w*4PlanILi4ELi1ELb0E", mangled):
            loops["planes"] = smallest_loop(function, "LDS", 30)
        if "scan_rowsILi2E" in mangled:
            loops["popcount"] = smallest_loop(function, "POPC", 2)
    return loops


def smallest_loop(function: str, operation: str, at_least: int) -> list[str]:
    """Return the shortest stretch that a branch back closes around so many operations."""
    lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", function, re.MULTILINE)
    code = [(int(address, 16), re.sub(r"^@!?U?P\w+ ", "", text)) for address, text in lines]
    found: list[list[str]] = []
    for address, text in code:
        target = re.match(r"BRA\S* .*?(0x[0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            body = [t for a, t in code if int(target[1], 16) <= a <= address]
            if sum(t.startswith(operation) for t in body) >= at_least:
                found.append(body)
    return min(found, key=len)


@dataclass
class Estimate:
    """Instructions for each code and query, and codes in a clock that each unit could keep up."""

    logic_operations: float
    instructions: float
    shared_loads: float
    popcounts: float
    rates: dict[str, float]

    @property
    def rate(self) -> float:
        """Estimate the codes that a multiprocessor compares in a clock, by its slowest unit."""
        return min(self.rates.values())


def estimate(loop: list[str], kind: str) -> Estimate:
    """Count a loop: by planes a lane has 128 codes, by population counts one for each two."""
    names = Counter(text.split()[0].split(".")[0] for text in loop)
    codes = 128 if kind == "planes" else names["POPC"] / 2
    # A warp's 16-byte loads of a table take four clocks; the others (offsets: four addresses in
    # different banks) take one.
    wide = min(sum(text.startswith("LDS.128") for text in loop), 33) if kind == "planes" else 0
    clocks = 4 * wide + names["LDS"] - wide
    rates = {
        "logic": LOGIC_RATE * codes / sum(names[name] for name in LOGIC),
        "issue": ISSUE_RATE * codes / len(loop),
        "shared memory": 32 * codes / clocks if clocks else float("inf"),
    }
    if names["POPC"]:
        rates["popcount"] = POPC_RATE * codes / names["POPC"]
    return Estimate(
        names["LOP3"] / codes, len(loop) / codes, names["LDS"] / codes, names["POPC"] / codes, rates
    )


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = []
        for source in ("sampling.cu", "search.cu"):
            kernels += compile_for(DEVICES, source, Path(folder) / f"{source}.o")
        print("registers on " + ", ".join(f"sm_{device}" for device in DEVICES) + "; spilled bytes")
        for name in dict.fromkeys(kernel.name for kernel in kernels):
            same = sorted((k for k in kernels if k.name == name), key=lambda kernel: kernel.device)
            registers = " ".join(f"{kernel.registers:4}" for kernel in same)
            print(f"{name:28} {registers}   {sum(kernel.spills for kernel in same)}")
        print("\ndevice kernel     LOP3  all   LDS   POPC  codes a clock (estimated), limited by")
        for device in DEVICES:
            for kind, loop in inner_loops(Path(folder) / "search.cu.o", device).items():
                e = estimate(loop, kind)
                unit = min(e.rates, key=e.rates.__getitem__)
                print(
                    f"sm_{device:<4}{kind:9} {e.logic_operations:5.2f} {e.instructions:5.2f} "
                    f"{e.shared_loads:5.2f} {e.popcounts:5.2f} {e.rate:6.1f}  {unit}"
                )


if __name__ == "__main__":
    main()
