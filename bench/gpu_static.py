"""What the compiler says about the CUDA kernels: needs nvcc and cuobjdump, no GPU.

`python bench/gpu_static.py` compiles for several devices, with warnings as errors, and prints:

- registers, spills and stack of each kernel;
- for the inner loop of search, by population counts, by planes and by the matrix units, the
  instructions for each code and query;
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "csrc"
DEVICES = (75, 80, 90, 100)
FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-fmad=false", "-Werror", "all-warnings"]

# Results of a clock and multiprocessor (CUDA C++ programming guide, arithmetic instructions):
# the same for 7.5 to 10.0.
LOGIC_RATE, POPC_RATE, ISSUE_RATE, SHARED_BYTES = 64, 16, 128, 128
MATRIX_DEVICES = (80, 90)  # the others have no products of single bits
# Products of single bits: A100's data sheet has 4992e12 operations a second, of 108 multiprocessors
# at 1.41 GHz. None is published for later devices.
BIT_PRODUCTS = 16384
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
        r"(scan_planes|scan_rows|scan_by_products|bound_by_sample|collect_nearest|transpose_rows"
        r"|set_queries|all_distances|draw|above|relax)(I\S*)?",
        mangled,
    )
    assert name is not None, mangled
    arguments = re.findall(r"L[ib](\d+)E|(B?Float\d+)", (name[2] or "").split("EEv")[0] + "E")
    return f"{name[1]}<{','.join(a or b for a, b in arguments)}>" if arguments else name[1]


# Bits of a code, kernel, and a part of the function's mangled name.
INNER_LOOPS = (
    (64, "popcount", r"scan_rowsILi2E"),
    (64, "planes", r"scan_planesI\w*4PlanILi4ELi1ELb0E"),
    (64, "matrix", r"scan_by_productsILi2E"),
    (128, "planes", r"scan_planesI\w*4PlanILi8ELi2ELb0E"),
    (128, "matrix", r"scan_by_productsILi4E"),
    (256, "matrix", r"scan_by_productsILi8E"),
)
Code = list[tuple[int, str]]  # address, instruction


def inner_loops(binary: Path, device: int) -> dict[tuple[int, str], list[str]]:
    """Return the instructions of the inner loop of each scan, by bits and kernel."""
    command = [find("cuobjdump") or "cuobjdump", "--dump-sass", f"--gpu-architecture=sm_{device}"]
    listing = subprocess.run([*command, str(binary)], capture_output=True, text=True, check=True)
    functions = {}
    for function in listing.stdout.split("Function : ")[1:]:
        lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", function, re.MULTILINE)
        code = [(int(address, 16), re.sub(r"^@!?U?P\w+ ", "", text)) for address, text in lines]
        functions[function.split("\n", 1)[0]] = code
    loops = {}
    for n_bits, kind, pattern in INNER_LOOPS:
        code = next(code for name, code in functions.items() if re.search(pattern, name))
        if kind == "popcount":
            loops[n_bits, kind] = smallest_loop(code, "POPC", 2)
        elif kind == "planes":
            loops[n_bits, kind] = smallest_loop(code, "LDS", 30)
        elif device in MATRIX_DEVICES:
            loops[n_bits, kind] = until_vote(code)
    return loops


def branches(code: Code) -> Iterator[tuple[int, int]]:
    """Go through the branches: the address of each, and where it goes."""
    for address, text in code:
        if target := re.match(r"BRA\S* .*?(0x[0-9a-f]+)", text):
            yield address, int(target[1], 16)


def smallest_loop(code: Code, operation: str, at_least: int) -> list[str]:
    """Return the shortest loop with at least this many operations."""
    found: list[list[str]] = []
    for address, target in branches(code):
        body = [text for a, text in code if target <= a <= address]
        if sum(text.startswith(operation) for text in body) >= at_least:
            found.append(body)
    return min(found, key=len)


def until_vote(code: Code) -> list[str]:
    """Return a step of the matrix kernel in which no code is near: from its start to the vote."""
    products = min(address for address, text in code if text.startswith("BMMA"))
    vote = min(a for a, text in code if text.startswith("VOTE.ANY") and a > products)
    start = max(target for _, target in branches(code) if target <= products)
    return [text for address, text in code if start <= address <= vote]


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


def estimate(loop: list[str], n_bits: int, kind: str) -> Estimate:
    """Count a loop: in it a lane of the planes compares 128 codes, one of the others fewer."""
    names = Counter(text.split()[0].split(".")[0] for text in loop)
    codes = {"planes": 128, "popcount": names["POPC"] / 2, "matrix": 256 * names["BMMA"] / n_bits}
    n = codes[kind]
    # A warp's 16-byte loads of a table take four clocks; the others (offsets: four addresses in
    # different banks) take one.
    n_wide = sum(text.startswith("LDS.128") for text in loop)
    wide = min(n_wide, n_bits // 2 + 1) if kind == "planes" else 0
    clocks = 4 * wide + names["LDS"] - wide
    rates = {
        "logic": LOGIC_RATE * n / sum(names[name] for name in LOGIC),
        "issue": ISSUE_RATE * n / len(loop),
    }
    if clocks:
        rates["shared memory"] = 32 * n / clocks
    if names["POPC"]:
        rates["popcount"] = POPC_RATE * n / names["POPC"]
    if names["BMMA"]:
        rates["matrix units"] = BIT_PRODUCTS / (2 * n_bits)
    return Estimate(names["LOP3"] / n, len(loop) / n, names["LDS"] / n, names["POPC"] / n, rates)


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
        print(
            "\ndevice bits kernel    LOP3  all   LDS   POPC  codes a clock (estimated), limited by"
        )
        for device in DEVICES:
            for (n_bits, kind), loop in inner_loops(Path(folder) / "search.cu.o", device).items():
                e = estimate(loop, n_bits, kind)
                unit = min(e.rates, key=e.rates.__getitem__)
                print(
                    f"sm_{device:<4}{n_bits:3} {kind:9} {e.logic_operations:5.2f} "
                    f"{e.instructions:5.2f} {e.shared_loads:5.2f} {e.popcounts:5.2f} "
                    f"{e.rate:6.1f}  {unit}"
                )


if __name__ == "__main__":
    main()
