#!/usr/bin/env bash
# The image's file system, without a Docker daemon:
#   deploy/container/rootfs.sh BUILD OUT
# BUILD is a built tree (build/release), OUT a new directory: /opt/quire as `cmake --install` gives it, stripped, the C library and
# its loader, a user, /tmp. No shell, no package manager. Writes OUT.contents, a line with bytes and name for each file.
# Pack it with `tar -C OUT -c . | docker import -c 'USER 65532' -c 'ENTRYPOINT ["/opt/quire/bin/quired"]' - quire:0.1.0`, or run it with any
# tool that takes a root file system (crun, systemd-nspawn, chroot).
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 BUILD OUT" >&2; exit 1; }
build=$1 out=$2
[ ! -e "$out" ] || { echo "$0: $out exists" >&2; exit 1; }

mkdir -p "$out"/{etc,tmp,proc,models}
cmake --install "$build" --prefix "$out/opt/quire" --strip >/dev/null
find "$out/opt/quire/lib" -type f -name '*.so*' -exec strip --strip-unneeded {} +
rm -rf "$out/opt/quire/share/doc/quire/README.md"

# What the programs and the libraries that travel with them need of the system, by the loader's own search.
find "$out/opt/quire" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
  awk '$2 == "=>" && $3 ~ "^/" {print $3} $1 ~ "^/.*ld-linux" {print $1}' | sort -u |
  while read -r library; do
    [ -e "$out/opt/quire/lib/$(basename "$library")" ] && continue
    mkdir -p "$out$(dirname "$library")"
    cp -L "$library" "$out$library"
  done

# Authorities, for a collector behind https.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  mkdir -p "$out/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/"
fi
printf 'root:x:0:0:root:/:/nologin\nquire:x:65532:65532:quire:/:/nologin\n' >"$out/etc/passwd"
printf 'root:x:0:\nquire:x:65532:\n' >"$out/etc/group"
printf 'hosts: files dns\n' >"$out/etc/nsswitch.conf"
chmod 1777 "$out/tmp"
find "$out" -mindepth 1 -type f -printf '%10s  /%P\n' | sort -k2 >"$out.contents"
echo "$out: $(wc -l <"$out.contents") files, $(($(awk '{sum += $1} END {print sum}' "$out.contents") >> 20)) MiB" >&2
