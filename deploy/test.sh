#!/usr/bin/env bash
# Installs packages, builds everything and runs the whole test suite; ctest's summary is the last thing printed.
#   deploy/test.sh [ctest arguments, e.g. -R scheduler]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
install_packages
echo "building (several minutes the first time; output in build/release.log)" >&2
build_release all
exec ctest --preset release -j "$(nproc)" "$@"
