#!/usr/bin/env bash
# One call on a real GPU:
#   deploy/gpu_check.sh OUTDIR
# On a machine with CUDA 12.4 or later, cmake and Python, without our packages and without a network (the libraries are then those that
# deploy/gpu_bundle.sh carried along): builds kernels and engine, runs the CUDA tests on the device, the benchmarks, others' attention where
# PyTorch is installed, compute-sanitizer on some of the tests (a tool that refuses the device is reported, no failure), then the same tests
# emulated. Ends within nine minutes: every part has a limit, and what the time does not allow is skipped and said so. Writes OUTDIR/summary.md,
# summary.json, bench.md, bench.json, peers.md, peers.json, the tests' XML and the logs. Exit code 0: built, and every part that ran passed.
# Without a device the tests fail in one line and the benchmarks run emulated.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
out=$(realpath -m "${1:?usage: deploy/gpu_check.sh OUTDIR}")
mkdir -p "$out"
deadline=$((SECONDS + ${QUIRE_GPU_CHECK_SECONDS:-525}))
export PATH=$PATH:/usr/local/cuda/bin QUIRE_REQUIRE_CUDA_DEVICE=1
build=build/gpu_check
summary=$out/summary.md
failed=0
parts=()

say() { echo "$*" | tee -a "$summary"; }

# part NAME SECONDS COMMAND...: runs a command into OUTDIR/NAME.log, for so long and no longer than there is time; what it
# gives goes to the summary.
part() {
  local name=$1 limit=$2 left=$((deadline - SECONDS)) begin=$SECONDS status result
  shift 2
  if [ $left -lt 10 ]; then
    say "- $name: skipped, out of time"
    parts+=("{\"part\": \"$name\", \"result\": \"skipped\", \"seconds\": 0}")
    return 125
  fi
  timeout -k 5 $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
  status=$?
  case $status in
    0) result=passed ;;
    124 | 137) result="out of time" failed=1 ;;
    *) result=FAILED failed=1 ;;
  esac
  say "- $name: $result, $((SECONDS - begin)) s$(text_of "$out/$name.log")"
  parts+=("{\"part\": \"$name\", \"result\": \"$result\", \"seconds\": $((SECONDS - begin))}")
  [ $status -eq 0 ] || grep -m 1 "no device:" "$out/$name.log" | tee -a "$summary" | grep . ||
    grep -E "Failure|error:|difference|which is|^(backend )?(cuda|CUDA|cuBLASLt|quire_cuda_bench): " "$out/$name.log" | sort | uniq -c | sort -rn | head -n 12 | tee -a "$summary"
  return $status
}

# What googletest counted.
text_of() {
  grep -q '^\[==========\]' "$1" || return 0
  echo ": $(grep -cE '^\[       OK \]' "$1") passed, $(grep -cE '^\[  FAILED  \] .* ms\)$' "$1") failed, $(grep -cE '^\[  SKIPPED \] .* ms\)$' "$1") skipped"
}

finish() {
  (IFS=,; echo "{\"failed\": $failed, \"seconds\": $SECONDS, \"parts\": [${parts[*]}]}") >"$out/summary.json"
  echo "summary: $summary"
  exit $failed
}

{
  echo "# quire on a GPU"
  echo
  echo "- date: $(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD 2>/dev/null || cat gpu_bundle/commit 2>/dev/null || echo unknown)"
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total,memory.free --format=csv,noheader 2>/dev/null | sed 's/^/- device: /'
  echo "- $(nvcc --version 2>&1 | tail -2 | head -1), $(nproc) CPUs"
} >"$summary"

options=(-DCMAKE_BUILD_TYPE=Release -DQUIRE_CUDA=ON -DQUIRE_ENGINE_ONLY=ON)
command -v ninja >/dev/null && options+=(-G Ninja)
if [ -d gpu_bundle ]; then
  prefix=$PWD/gpu_bundle/usr
  libraries=$prefix/lib/$(gcc -print-multiarch)
  # OpenSSL's file by file: versions of cmake differ in where they look.
  options+=(-DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_LIBRARY_ARCHITECTURE="$(gcc -print-multiarch)" -DOPENSSL_INCLUDE_DIR="$prefix/include"
    -DOPENSSL_CRYPTO_LIBRARY="$libraries/libcrypto.a" -DOPENSSL_SSL_LIBRARY="$libraries/libssl.a")
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# The device's own machine code alone: the build is a third as long.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
case $capability in 90) options+=(-DQUIRE_CUDA_ARCHITECTURES=90a-real) ;; ?*) options+=(-DQUIRE_CUDA_ARCHITECTURES="$capability-real") ;; *) options+=(-DQUIRE_CUDA_ARCHITECTURES=90a-real) ;; esac
device_tests="quire_cuda_device_test quire_cuda_model_test"
emulated_tests="quire_cuda_kernels_test quire_cuda_attention_test"

part configure 60 cmake -S . -B "$build" "${options[@]}" || finish
# shellcheck disable=SC2086
part build "${QUIRE_GPU_CHECK_BUILD_SECONDS:-300}" cmake --build "$build" -j "$(nproc)" --target $device_tests $emulated_tests quire_cuda_bench || finish

for test in $device_tests; do
  part "$test" 120 "$build/bin/$test" --gtest_filter='*/Device:CudaMemoryTest.*' --gtest_output="xml:$out/$test.xml"
done

if HAS=$(nvidia-smi -L 2>/dev/null) && [ -n "$HAS" ]; then
  part bench 180 "$build/bin/quire_cuda_bench" --seconds 0.1 --json "$out/bench.json"
  if python3 -c 'import torch' 2>/dev/null; then
    before=$failed
    # shellcheck disable=SC2046
    part peers 75 python3 tests/bench/gpu_peers.py $([ -s "$out/bench.json" ] && echo --quire "$out/bench.json") --json "$out/peers.json"
    failed=$before  # others' attention: no failure of ours
  else
    say "- peers: PyTorch is not installed"
  fi
  for tool in memcheck racecheck; do
    if ! command -v compute-sanitizer >/dev/null; then
      say "- compute-sanitizer: not installed"
      break
    fi
    before=$failed
    part $tool 60 compute-sanitizer --tool $tool --error-exitcode 9 "$build/bin/quire_cuda_device_test" --gtest_filter='*AFewShapes*/Device:*SmallOperations*/Device:*Rope*/Device'
    status=$?
    if [ $status -ne 0 ] && grep -qiE "not supported|unable to|internal error" "$out/$tool.log"; then
      say "  which refuses this device, no failure: $(grep -iE 'not supported|unable to|internal error' "$out/$tool.log" | head -1)"
      failed=$before
    elif [ $status -eq 124 ] || [ $status -eq 137 ]; then
      say "  no error until then"
      failed=$before
    fi
  done
else
  say "- no device: nvidia-smi names none; the benchmarks run emulated and say nothing of speed"
  part bench 100 "$build/bin/quire_cuda_bench" --emulated --json "$out/bench.json"
fi
for test in $emulated_tests; do part "$test" 60 "$build/bin/$test"; done

for log in bench peers; do
  grep -E '^\||copy .* matrix product' "$out/$log.log" >"$out/$log.md" 2>/dev/null && { echo; cat "$out/$log.md"; } >>"$summary"
done
finish
