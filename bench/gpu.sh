#!/usr/bin/env bash
# Everything that needs a GPU, in under 8 minutes, without a network: builds the extension, runs
# every CUDA test, compute-sanitizer on a small suite, and the benches. Figures and logs go into a
# folder (the first argument); send it with an issue.
#
#   bench/gpu.sh [folder]          PYTHON=python3 chooses another Python
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-bench/results/gpu}")
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD" TORCH_EXTENSIONS_DIR="$out/build"
unset SSBHASH_CUDA_LIBRARY
failed=()

# step NAME SECONDS COMMAND...: its output goes to NAME.log
step() {
    local name=$1 seconds=$2 begin=$SECONDS
    shift 2
    if timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
        echo "ok      $name ($((SECONDS - begin))s)"
    else
        failed+=("$name")
        echo "FAILED  $name ($((SECONDS - begin))s): $out/$name.log"
        tail -n 15 "$out/$name.log"
    fi
}

{ date; nvidia-smi; nvcc --version; "$python" -c 'import torch; print("torch", torch.__version__)'; } \
    >"$out/machine.log" 2>&1
# The CPU's engine, to compare with; without it the numba or numpy engine does.
step core 60 "$python" -m pip install --no-build-isolation --no-deps --target "$out/installed" .
cp "$out"/installed/ssbhash/_core*.so ssbhash/ 2>/dev/null
step build 100 "$python" -c 'from ssbhash.engines import cuda_build; cuda_build.load()'
step tests 90 "$python" -m pytest -q -x --continue-on-collection-errors -k "cuda or device" \
    tests/test_cuda_engine.py tests/test_hamming.py tests/test_hamming_extras.py \
    tests/test_sampling.py tests/test_threads.py tests/test_torch_ops.py
small=("$python" -m pytest -q -x tests/test_cuda_engine.py -k "all or other")
PYTORCH_NO_CUDA_MEMORY_CACHING=1 step memcheck 45 \
    compute-sanitizer --tool memcheck --error-exitcode 1 "${small[@]}"
step racecheck 45 compute-sanitizer --tool racecheck --error-exitcode 1 "${small[@]}"
step search 50 "$python" bench/hamming.py --device cuda --bits 64 --n 16777216 --queries 1 4096
step widths 40 "$python" bench/hamming.py --device cuda --bits 32 128 256 512 --n 1048576 --queries 32 1024
step large_k 15 "$python" bench/hamming.py --device cuda --bits 64 --n 1048576 --queries 1024 --k 100 1000
step sampling 15 "$python" bench/sampling.py --device cuda
echo "${SECONDS}s in all; figures and logs in $out"
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}"; exit 1; }
