#!/usr/bin/env bash
# Renders the overlays to rendered/*.yaml (needs kubectl 1.26 or later, or kustomize 5): for people without kustomize, for review, and for
# the tests. Run it after a change; a test compares the images, flags and probes of what is rendered with what is written.
set -euo pipefail
cd "$(dirname "$0")"
build=(kubectl kustomize)
command -v kubectl >/dev/null || build=(kustomize build)
for overlay in overlays/*/; do
  name=$(basename "$overlay")
  { echo "# Made by render.sh from overlays/$name: do not edit."; "${build[@]}" "$overlay"; } >"rendered/$name.yaml"
done
