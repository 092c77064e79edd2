#!/usr/bin/env bash
# The image's file system: small (but for cuBLASLt, where it has the CUDA backend), without a shell, and quired serves in it as an unprivileged user with a read-only root.
#   container_test.sh SOURCE BUILD QUIRE
# Exit code 77 (skipped) where this user may not make namespaces.
set -euo pipefail
source=$1 build=$2 quire=$3
unshare --mount true 2>/dev/null || { echo "skipped: no permission for a mount namespace"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$source/deploy/container/rootfs.sh" "$build" "$work/root"

bytes=$(awk '$2 !~ /libcublasLt/ {sum += $1} END {print sum}' "$work/root.contents")
[ "$bytes" -lt $((150 << 20)) ] || { echo "the image has $bytes bytes; allowed: below 150 MiB"; exit 1; }
if grep -E '/(sh|bash|dash|busybox|apt|dpkg|perl|python[0-9.]*)$' "$work/root.contents"; then
  echo "the image has a shell, an interpreter or a package manager"
  exit 1
fi

mkfifo "$work/ready"
# No fork: what is killed at the end is the daemon itself (a child that changes its user would outlive its parent).
unshare --mount bash -c '
  set -e
  mount --bind "$1" "$1"
  mount -t proc proc "$1/proc"
  mount -o remount,bind,ro "$1"
  mount -t tmpfs tmpfs "$1/tmp"
  exec chroot --userspec=65532:65532 "$1" /opt/quire/bin/quired serve --model /opt/quire/share/quire/models/tales-5m \
    --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --kv-cache-memory 64MiB' - "$work/root" >"$work/ready" 2>"$work/log" &
daemon=$!
trap 'kill -KILL $daemon 2>/dev/null || true; wait $daemon 2>/dev/null || true; rm -rf "$work"' EXIT
read -r line <"$work/ready" || { cat "$work/log"; echo "quired did not start in the image"; exit 1; }
target=$(sed -n 's/.* grpc=\([^ ]*\).*/\1/p' <<<"$line")
text=$("$quire" generate --target "$target" --prompt "Once upon a time" --max-tokens 8 --temperature 0)
[ -n "$text" ] || { echo "no text"; exit 1; }
echo "$(wc -l <"$work/root.contents") files, $((bytes >> 20)) MiB: $text"
