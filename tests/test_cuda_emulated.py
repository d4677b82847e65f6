"""The search kernels under the emulator: exact in any order of threads, wrong without a barrier."""

import shutil
import subprocess
from pathlib import Path

import emulated_cuda
import pytest

pytestmark = [
    pytest.mark.skipif(emulated_cuda.compiler() is None, reason="no C++ compiler here"),
    pytest.mark.slow,
]

TESTS = emulated_cuda.HARNESS / "search_tests.cpp"


def run(program: Path, **environment: str) -> int:
    done = subprocess.run([program], env=environment, capture_output=True, timeout=300, check=False)
    return done.returncode


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("emulated") / "tests"
    emulated_cuda.compile_emulated(TESTS, to, "-O1")
    return to


@pytest.mark.parametrize("shared_bytes", ["232448", "65536"])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_order_of_threads_and_blocks_is_exact(
    program: Path, seed: str, shared_bytes: str
) -> None:
    assert run(program, SSBHASH_EMULATOR_SEED=seed, SSBHASH_EMULATOR_SHARED=shared_bytes) == 0


# What a kernel must not lose: (file, text, what stands there instead).
MUTATIONS = {
    "barrier before a table is overwritten": (
        "plane_scan.cuh", "__syncthreads(); // the tile before is done", ""),
    "barrier after a table is built": (
        "plane_scan.cuh", "__syncthreads(); // table, ends and limits are there", ""),
    "barrier before a segment is overwritten": (
        "plane_scan.cuh", "__syncthreads(); // the segment before is done", ""),
    "barrier after a segment is built": (
        "plane_scan.cuh", "__syncthreads(); // the segment's table is there", ""),
    "barrier after queries are loaded": (
        "row_scan.cuh", "__syncthreads(); // the queries are there", ""),
    "bound of codes in a tile": (
        "plane_scan.cuh", "left >= 32 ? ~0u : left <= 0 ? 0u : (1u << left) - 1", "~0u"),
    "bound of codes in a row scan": ("row_scan.cuh", "position < search.codes.n &&", "true &&"),
    "bound of codes in the planes": ("planes.cuh", "first + i < codes.n &&", "true &&"),
    "bound of codes for the matrix units": (
        "matrix_scan.cuh", "32 * step < last_first ? 32 * step : last_first", "32 * step"),
    "codes that the matrix units see twice": (
        "matrix_scan.cuh", "hits[slot] >> (32 * step - first)", "hits[slot]"),
    "barrier after limits are lowered": (
        "matrix_scan.cuh", "group.sync(); // limits are there", ""),
    "barrier after starts are set": ("matrix_scan.cuh", "group.sync(); // starts are there", ""),
    "barrier after hits are noted": ("matrix_scan.cuh", "group.sync(); // hits are there", ""),
    "bound of queries": ("planes.cuh", "if (query >= n_queries)", "if (false)"),
    "bound of a list": (
        "sink.cuh", "n_found_ + __popc(taken) > room_", "false"),
    "bound of what was counted": ("sink.cuh", "if (place < room_)", "if (room_ > 0)"),
    "ties by id": ("sink.cuh", "group_.rank(tied) < ties", "true"),
    "limit of other slices": ("sink.cuh", "first + lane + 1", "first + lane"),
    "codes of the sample that are filtered away": ("select.cuh", "!search.allowed ||", "true ||"),
    "barrier after sums of warps": (
        "select.cuh", "__syncthreads(); // sums of the warps are there", ""),
    "barrier before new sums of warps": (
        "select.cuh", "__syncthreads(); // sums of the warps were read", ""),
    "slices before": ("select.cuh", "other < warp ? tied_of_warp[other] : 0", "0"),
    "ties that are too many": ("select.cuh", "d == last && tied_before < n_ties", "d == last"),
    "what was not found": ("select.cuh", "out[i] = kNothingFound", "(void)out"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_lost_barrier_or_bound_is_noticed(name: str, tmp_path: Path) -> None:
    file, text, instead = MUTATIONS[name]
    shutil.copytree(emulated_cuda.REPOSITORY / "csrc", tmp_path / "csrc")
    source = tmp_path / "csrc" / "cuda" / file
    original = source.read_text()
    assert original.count(text) == 1
    source.write_text(original.replace(text, instead))
    program = tmp_path / "tests"
    emulated_cuda.compile_emulated(TESTS, program, "-O1", sources=tmp_path)
    assert run(program) != 0
