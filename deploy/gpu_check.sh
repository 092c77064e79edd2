#!/usr/bin/env bash
# One call on a real GPU:
#   deploy/gpu_check.sh OUTDIR
# On a machine with CUDA 12.4 or later, cmake and Python, without our packages and without a network (the libraries are then those that
# deploy/gpu_bundle.sh carried along): builds kernels and engine, runs the CUDA tests on the device, compute-sanitizer on some of them
# (a tool that refuses the device is reported, no failure), then the benchmarks. Writes OUTDIR/summary.md, bench.md, bench.json, tests.xml
# and the logs; ends within nine minutes. Exit code 0: built, and all tests passed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: deploy/gpu_check.sh OUTDIR}")
mkdir -p "$out"
deadline=$((SECONDS + 520))
left() { local s=$((deadline - SECONDS)); echo $((s > 5 ? s : 5)); }
export PATH=$PATH:/usr/local/cuda/bin
build=build/gpu_check
summary=$out/summary.md
failed=0

{
  echo "# quire on a GPU"
  echo
  echo "- date: $(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD 2>/dev/null || echo 'of the bundle')"
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total,memory.free --format=csv,noheader 2>/dev/null | sed 's/^/- device: /'
  echo "- $(nvcc --version | tail -2 | head -1)"
} >"$summary"

say() { echo "$*" | tee -a "$summary"; }

options=(-DCMAKE_BUILD_TYPE=Release -DQUIRE_CUDA=ON -DQUIRE_ENGINE_ONLY=ON)
command -v ninja >/dev/null && options+=(-G Ninja)
if [ -d gpu_bundle ]; then
  prefix=$PWD/gpu_bundle/usr
  options+=(-DCMAKE_PREFIX_PATH="$prefix" -DOPENSSL_ROOT_DIR="$prefix" -DOPENSSL_USE_STATIC_LIBS=ON -DCMAKE_LIBRARY_ARCHITECTURE="$(gcc -print-multiarch)")
fi
# The device's own machine code alone: the build is a third as long.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
case $capability in 90) options+=(-DQUIRE_CUDA_ARCHITECTURES=90a-real) ;; ?*) options+=(-DQUIRE_CUDA_ARCHITECTURES="$capability-real") ;; esac
begin=$SECONDS
if ! { cmake -S . -B "$build" "${options[@]}" && timeout "$(left)" cmake --build "$build" -j "$(nproc)" --target \
    quire_cuda_attention_test quire_cuda_kernels_test quire_cuda_device_test quire_cuda_model_test quire_cuda_bench; } >"$out/build.log" 2>&1; then
  say "- build: FAILED, the end of build.log:"
  tail -n 30 "$out/build.log" | tee -a "$summary"
  exit 1
fi
say "- build: ok, $((SECONDS - begin)) s"

for test in quire_cuda_device_test quire_cuda_model_test quire_cuda_kernels_test quire_cuda_attention_test; do
  if timeout "$(left)" "$build/bin/$test" --gtest_output="xml:$out/$test.xml" >"$out/$test.log" 2>&1; then
    say "- $test: $(grep -E '^\[  PASSED' "$out/$test.log" | tail -1), skipped $(grep -c '^\[  SKIPPED.*(' "$out/$test.log")"
  else
    say "- $test: FAILED"
    grep -E "Failure|FAILED|difference|which is" "$out/$test.log" | head -n 20 | tee -a "$summary"
    failed=1
  fi
done

for tool in memcheck racecheck; do
  command -v compute-sanitizer >/dev/null || { say "- compute-sanitizer: not installed"; break; }
  limit=$(left)
  timeout $((limit < 60 ? limit : 60)) compute-sanitizer --tool $tool --error-exitcode 9 "$build/bin/quire_cuda_device_test" \
    --gtest_filter='*Linears*/Device' >"$out/$tool.log" 2>&1
  status=$?
  if grep -qiE "not supported|unable to|internal error" "$out/$tool.log" && [ $status -ne 0 ]; then
    say "- $tool: refuses this device ($(grep -iE 'not supported|unable to|internal error' "$out/$tool.log" | head -1))"
  elif [ $status -eq 124 ]; then
    say "- $tool: out of time, no error until then"
  elif [ $status -eq 0 ]; then
    say "- $tool: clean"
  else
    say "- $tool: FAILED, see $tool.log"
    failed=1
  fi
done

say ""
timeout "$(left)" "$build/bin/quire_cuda_bench" --seconds 0.2 --json "$out/bench.json" >"$out/bench.md" 2>"$out/bench.log" || {
  say "- benchmarks: ended with $? (124: out of time); $(tail -1 "$out/bench.log")"
  failed=1
}
cat "$out/bench.md" >>"$summary"
echo "summary: $summary"
exit $failed
