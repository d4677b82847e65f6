"""The CUDA kernels compiled for real devices: registers, spills, the inner loop's instructions."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
import gpu_static

pytestmark = [
    pytest.mark.skipif(gpu_static.find("nvcc") is None, reason="no nvcc here"),
    pytest.mark.slow,
]

# 65,536 registers of a multiprocessor, for two blocks of 256 threads or one of 512.
MAX_REGISTERS = {
    "scan_planes": 128,
    "scan_rows": 128,
    "scan_by_products": 128,
    "draw": 96,
    "transpose_rows": 255,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory):
    """Kernels of both sources, and the object of the search."""
    folder = tmp_path_factory.mktemp("cuda")
    kernels = []
    for source in ("search.cu", "sampling.cu"):
        kernels += gpu_static.compile_for(gpu_static.DEVICES, source, folder / f"{source}.o")
    return kernels, folder / "search.cu.o"


def test_no_kernel_spills_and_registers_leave_room(compiled) -> None:
    kernels, _ = compiled
    assert {kernel.device for kernel in kernels} == set(gpu_static.DEVICES)
    assert len(kernels) == 32 * len(gpu_static.DEVICES)
    for kernel in kernels:
        assert kernel.spills == 0, kernel
        assert kernel.registers <= MAX_REGISTERS.get(kernel.name.split("<")[0], 64), kernel


@pytest.mark.skipif(gpu_static.find("cuobjdump") is None, reason="no cuobjdump here")
def test_the_inner_loop_is_as_short_as_it_is_meant_to_be(compiled) -> None:
    _, binary = compiled
    for device in gpu_static.DEVICES:
        loops = gpu_static.inner_loops(binary, device)
        popcount, planes = (
            gpu_static.estimate(loops[64, kind], 64, kind) for kind in ("popcount", "planes")
        )
        assert 31 * 2 / 32 <= planes.logic_operations <= 2.2, (device, planes)
        assert planes.popcounts == 0
        assert popcount.popcounts == 2
        assert planes.rate > 3 * popcount.rate, (device, planes, popcount)
        for (n_bits, kind), loop in loops.items():
            if kind == "matrix":
                matrix = gpu_static.estimate(loop, n_bits, kind)
                assert matrix.logic_operations <= 1.1, (device, matrix)
                by_planes = (
                    gpu_static.estimate(loops[64, "planes"], 64, "planes").rate * 64 / n_bits
                )
                assert matrix.rate > 2.5 * by_planes, (device, matrix)
