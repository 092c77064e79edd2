#!/usr/bin/env bash
# The bundle for a GPU machine is small, and what deploy/gpu_check.sh configures from it needs none of our packages: here
# they are hidden.
#   gpu_bundle_test.sh SOURCE
# Exit code 77 (skipped) without nvcc, git's index, or the right to make a mount namespace.
set -euo pipefail
export PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || { echo "skipped: no nvcc"; exit 77; }
git -C "$1" rev-parse --git-dir >/dev/null 2>&1 || { echo "skipped: no git repository"; exit 77; }
unshare --mount true 2>/dev/null || { echo "skipped: no permission for a mount namespace"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1/deploy/gpu_bundle.sh" "$work/bundle.tar.gz"
tar -C "$work" -xf "$work/bundle.tar.gz"
kib=$(du -sk "$work/quire" | cut -f1)
[ "$kib" -lt $((60 << 10)) ] || { echo "the repository with its bundle has $kib KiB; allowed: below 60 MiB"; exit 1; }

mkdir "$work/empty"
cd "$work/quire"
# No device and no time to build: it ends when it has configured.
QUIRE_GPU_CHECK_SECONDS=100 QUIRE_GPU_CHECK_BUILD_SECONDS=1 unshare --mount bash -c '
  for hidden in /usr/include/{absl,benchmark,gmock,gtest,nlohmann,openssl,spdlog} /usr/lib/cmake /usr/share/cmake "/usr/lib/$2"/{cmake,pkgconfig}; do
    [ ! -d "$hidden" ] || mount --bind "$1" "$hidden"
  done
  deploy/gpu_check.sh "$3" || true' - "$work/empty" "$(gcc -print-multiarch)" "$work/out"
grep -q '^- configure: passed' "$work/out/summary.md" || { cat "$work/out/configure.log"; exit 1; }
grep -E 'Found|_DIR' "$work/out/configure.log" | grep -E '/usr/(include|lib|share)' | grep -v "$work" | grep -iE 'absl|openssl|gtest|json' && { echo "found beside the bundle"; exit 1; }
echo "configured; repository and bundle $((kib >> 10)) MiB"
