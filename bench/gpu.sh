#!/usr/bin/env bash
# Everything that needs a GPU, in some 9 minutes, without a network or pip: builds the extension,
# runs every CUDA test, the benches, compute-sanitizer on a small suite, and a profile. Figures and
# logs go into a folder (the first argument); send it with an issue. It ends with 1 where a step
# failed or took longer than it may.
#
#   bench/gpu.sh [folder [step...]]    all steps, or those named; PYTHON=python3 chooses another Python
#
# It needs nvcc, a C++20 compiler, torch with CUDA, ninja, pytest, hypothesis and scikit-learn.
# CMake and pybind11 give the C++ engine to compare with, without them numba or numpy serves;
# compute-sanitizer and ncu are steps of their own.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-bench/results/gpu}")
python=${PYTHON:-python3}
wanted=" ${*:2} "
mkdir -p "$out"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export PYTHONPATH="$PWD" TORCH_EXTENSIONS_DIR="$build" PYTHONUNBUFFERED=1
unset SSBHASH_CUDA_LIBRARY SSBHASH_CUDA_KERNEL SSBHASH_BACKEND
failed=()

# step NAME SECONDS COMMAND...: its output goes to NAME.log
step() {
    local name=$1 seconds=$2 begin=$SECONDS status=0
    [[ $wanted == "  " || $name == build || $wanted == *" $name "* ]] || return 0
    shift 2
    timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1 || status=$?
    if ((status == 0)); then
        echo "ok      $name ($((SECONDS - begin))s)"
    else
        failed+=("$name")
        echo "FAILED  $name ($((SECONDS - begin))s, exit status $status): $out/$name.log"
        tail -n 25 "$out/$name.log"
    fi
}

{ date; nvidia-smi; nvcc --version; "$python" -c 'import torch; print("torch", torch.__version__)'; } \
    >"$out/machine.log" 2>&1
if ! "$python" -c 'import torch; torch.ones(1, device="cuda")' 2>>"$out/machine.log"; then
    echo "FAILED  torch finds no CUDA device: $out/machine.log"
    exit 1
fi

core() {
    cmake -S . -B "$build/core" -G Ninja -DPython_EXECUTABLE="$(command -v "$python")" \
        -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
        cmake --build "$build/core" && cmake --install "$build/core" --prefix .
}
if command -v cmake >/dev/null && "$python" -c 'import pybind11' 2>/dev/null; then
    core >"$out/core.log" 2>&1 & # beside the other build
    core_job=$!
fi
step build 100 "$python" -c 'from ssbhash.engines import cuda_build; cuda_build.load()'
if [[ -n ${core_job:-} ]] && ! wait "$core_job"; then
    failed+=(core)
    echo "FAILED  core: $out/core.log"
fi
library=$(find "$build" -name 'ssbhash_cuda.so' | head -n 1)
if [[ -z $library ]]; then
    echo "failed: ${failed[*]}; without the extension nothing else can run"
    exit 1
fi
export SSBHASH_CUDA_LIBRARY=$library # later processes need not look whether it is up to date

pytest=("$python" -m pytest -q -p no:cacheprovider -W default)
beside=() # tests run beside each other
"$python" -c 'import xdist' 2>/dev/null && beside=(-n 8)
step tests 110 "${pytest[@]}" "${beside[@]}" -k "cuda or device or kernel" \
    tests/test_cuda_engine.py tests/test_hamming.py tests/test_hamming_extras.py \
    tests/test_hamming_options.py tests/test_prepared.py tests/test_sampling.py \
    tests/test_threads.py tests/test_torch_ops.py tests/test_index.py
step training 90 "${pytest[@]}" "${beside[@]}" tests/test_training_on_device.py
step search 45 "$python" bench/hamming.py --device cuda --bits 64 --n 16777216 --queries 1 4096 --k 10
step widths 35 "$python" bench/hamming.py --device cuda --bits 32 128 256 512 --n 1048576 \
    --queries 32 1024 --k 10
step batches 30 "$python" bench/hamming.py --device cuda --bits 64 256 --n 4194304 \
    --queries 4 8 16 64 256 --k 10
step large_k 15 "$python" bench/hamming.py --device cuda --bits 64 --n 1048576 --queries 1024 \
    --k 100 1000
step sampling 15 "$python" bench/sampling.py --device cuda
step index 40 "$python" bench/on_gpu.py index
step fit 140 "$python" bench/on_gpu.py training
small=("${pytest[@]}" tests/test_cuda_engine.py -k "(stay and all) or other or (finds and 16)")
PYTORCH_NO_CUDA_MEMORY_CACHING=1 step memcheck 45 \
    compute-sanitizer --tool memcheck --error-exitcode 1 "${small[@]}"
step racecheck 40 compute-sanitizer --tool racecheck --error-exitcode 1 "${small[@]}"
installed() {
    cmake -S . -B "$build/installed" -G Ninja -DSSBHASH_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
        -DPython_EXECUTABLE="$(command -v "$1")" -Dpybind11_DIR="$("$1" -m pybind11 --cmakedir)" &&
        cmake --build "$build/installed" && cmake --install "$build/installed" --prefix "$build/site" &&
        cp -r ssbhash "$build/site/" && cd "$build/site" &&
        env -u SSBHASH_CUDA_LIBRARY PYTHONPATH="$build/site" PATH=/usr/bin "$(command -v "$1")" -c '
import numpy as np, ssbhash
from ssbhash.engines import cuda_build
assert cuda_build._BUILT.exists(), cuda_build._BUILT
codes = np.random.default_rng(0).integers(0, 256, (100_000, 8), np.uint8)
for backend in "reference", "cuda":
    found = ssbhash.search(codes, codes[:4], 10, backend=backend)
    print(backend, found.ids[:, :3].tolist())
'
}
export -f installed
export build
step installed 90 bash -c "installed $python"
step profile 30 ncu --clock-control none -k regex:scan_ -c 8 --section SpeedOfLight \
    --section ComputeWorkloadAnalysis --section SchedulerStats \
    "$python" bench/hamming.py --device cuda --bits 64 --n 1048576 --queries 1024 --k 10
echo "${SECONDS}s in all; figures and logs in $out"
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}"; exit 1; }
