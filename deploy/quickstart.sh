#!/usr/bin/env bash
# From a fresh Debian 12 to streamed text in one command:
#   deploy/quickstart.sh ["Once upon a time"]
# Installs packages, builds quired and quire, serves the bundled model on a free loopback port, streams a continuation of the prompt to
# the terminal and stops the daemon. Run again, it takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
prompt=${1:-Once upon a time}
model=deploy/models/tales-5m

install_packages
[ -x build/release/bin/quired ] || echo "building (a few minutes the first time)" >&2
build_release quired quire

ready=$(mktemp -u)
mkfifo "$ready"
build/release/bin/quired --model "$model" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --log-level warning >"$ready" &
daemon=$!
stop() {
  kill -TERM "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
  rm -f "$ready"
}
trap stop EXIT
read -r line <"$ready" || { echo "quired did not start" >&2; exit 1; }
target=$(sed -n 's/.* grpc=\([^ ]*\).*/\1/p' <<<"$line")
printf '%s' "$prompt"
build/release/bin/quire generate --target "$target" --prompt "$prompt" --max-tokens 200 --temperature 0.8 --top-p 0.95
