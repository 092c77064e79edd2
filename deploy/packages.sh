# Sourced by quickstart.sh and test.sh: the Debian 12 packages that a build needs, and how to get them.

packages=(
  g++ cmake ninja-build ccache pkg-config
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev libssl-dev
  libspdlog-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libmicrohttpd-dev libzip-dev
  libcurl4-openssl-dev ca-certificates
  python3-venv python3-yaml  # of the tests of deploy/
  libgtest-dev libgmock-dev libbenchmark-dev
)

# Installs what is missing; says nothing and does nothing when all is there.
install_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing ${#missing[@]} Debian packages: ${missing[*]}" >&2
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "not root and no sudo: install them, then run this again" >&2; return 1; }
    as_root=(sudo)
  fi
  local log
  log=$(mktemp)
  {
    "${as_root[@]}" apt-get update -q &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "the whole log: $log" >&2; return 1; }
  rm -f "$log"
}

# build TARGET...: configures and builds the release preset; its output is shown only when it fails.
build_release() {
  local log=build/release.log
  mkdir -p build
  { cmake --preset release && cmake --build --preset release --target "$@"; } >"$log" 2>&1 ||
    { tail -n 40 "$log" >&2; echo "the whole log: $log" >&2; return 1; }
}
