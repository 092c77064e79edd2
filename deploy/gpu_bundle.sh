#!/usr/bin/env bash
# Packs what deploy/gpu_check.sh needs on a machine that has CUDA, cmake and Python but neither our packages nor a network:
#   deploy/gpu_bundle.sh FILE.tar.gz (or .tar.xz, a third smaller)
# The repository's files and, below gpu_bundle/, headers and libraries of Abseil, OpenSSL's crypto, GoogleTest and nlohmann JSON
# as Debian 12 installs them (deploy/packages.sh). There: tar xf FILE.tar.gz && quire/deploy/gpu_check.sh OUTDIR
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: deploy/gpu_bundle.sh FILE.tar.gz or FILE.tar.xz}")
arch=$(gcc -print-multiarch)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/quire/gpu_bundle/usr/lib/$arch/cmake" "$work/quire/gpu_bundle/usr/include" "$work/quire/gpu_bundle/usr/share"
git ls-files -z | tar -c --null -T - | tar -x -C "$work/quire"
git rev-parse --short HEAD >"$work/quire/gpu_bundle/commit"
cd /usr
for headers in absl nlohmann gtest gmock openssl; do cp -r "include/$headers" "$work/quire/gpu_bundle/usr/include/"; done
cp -r "include/$arch/openssl/." "$work/quire/gpu_bundle/usr/include/openssl/" # what Debian keeps by architecture
cp -P lib/"$arch"/libabsl_*.so* lib/"$arch"/libcrypto.a lib/"$arch"/libssl.a lib/"$arch"/libgtest*.a lib/"$arch"/libgmock*.a "$work/quire/gpu_bundle/usr/lib/$arch/"
cp -r lib/"$arch"/cmake/{absl,GTest} "$work/quire/gpu_bundle/usr/lib/$arch/cmake/"
mkdir -p "$work/quire/gpu_bundle/usr/share/cmake"
cp -r share/cmake/nlohmann_json "$work/quire/gpu_bundle/usr/share/cmake/"
tar -C "$work" -caf "$out" quire
echo "$out: $(du -h "$out" | cut -f1), unpacked $(du -sh "$work" | cut -f1)"
