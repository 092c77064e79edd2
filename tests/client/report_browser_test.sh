#!/bin/bash
# The HTML report of `quire load` in headless Chromium: a short sweep against the paced server of tests/bench, with the
# server's metrics; then the page must render without a word on the console (its content security policy forbids every
# request and script, so either would be told there), and its charts must have as many marks as there are stages.
#
#   report_browser_test.sh BIN_DIR [OUT_DIR]     OUT_DIR keeps the page and screenshots, light and dark; exit 77: no Chromium
set -euo pipefail
bin=$1
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ]; then
  echo "SKIPPED: there is no chromium here (Debian: apt-get install chromium)"
  exit 77
fi
work=$(mktemp -d)
out=${2:-$work}
server=
finish() {
  [ -z "$server" ] || kill "$server"
  rm -rf "$work"
}
trap finish EXIT
mkdir -p "$out"

fail() {
  echo "FAILED: $*"
  exit 1
}

"$bin/quire_paced_server" 0 0 50 >"$work/ready" &
server=$!
until grep -qs ready "$work/ready"; do kill -0 "$server"; sleep 0.05; done
grpc=$(sed -n 's/.*grpc=\([^ ]*\).*/\1/p' "$work/ready")
http=$(sed -n 's/.*http=\([^ ]*\).*/\1/p' "$work/ready")

# At 20 ms a token no rate holds a TPOT of 1 ms: the search halves its rate seven times, and each stage stops at its second miss.
"$bin/quire" load --target "$grpc" --metrics-url "$http" --metrics-interval 0.05 --profile sweep --goodput tpot:1 ttft:5 \
  --sweep-start-rps 64 --sweep-stage-seconds 0.01 --random-input-len 8 --random-output-len 3 \
  --html "$out/report.html" --save-result --result-dir "$out" --result-filename report.json >"$work/table" 2>"$work/log" || {
  cat "$work/log"
  fail "quire load"
}
stages=$(grep -o '"stopped_early"' "$out/report.json" | wc -l)

browse() {
  timeout 100 "$chromium" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/profile" \
    --no-first-run --disable-background-networking --hide-scrollbars --window-size=1180,3400 "$@" "file://$out/report.html"
}
browse --enable-logging=stderr --dump-dom >"$work/dom" 2>"$work/console"
! grep CONSOLE "$work/console" || fail "the console has something to say"

count() { grep -o "$1" "$work/dom" | wc -l || true; }
expect() { [ "$2" = "$3" ] || fail "$1: $2, want $3"; }
expect "charts (4 cumulative, 2 over time, 2 of the server, 4 of the sweep)" "$(count '<figure>')" 12
expect "charts drawn" "$(count '<svg ')" 12
expect "lines of server metrics and sweep keys" "$(count 'class="key ')" 8
marks=$(count '<circle class="mark')
[ "$marks" -ge $((3 * stages)) ] || fail "$marks marks of $stages stages"
expect "bounds in the charts of TTFT and TPOT against the rate" "$([ "$(count 'class="rule"')" -ge 1 ] && echo some)" some
! grep -Eq '<script|NaN|>nan<' "$work/dom" || fail "a script, or a number that is none"

browse --screenshot="$out/report-light.png" 2>/dev/null
browse --blink-settings=preferredColorScheme=0 --screenshot="$out/report-dark.png" 2>/dev/null
for picture in "$out"/report-{light,dark}.png; do
  [ "$(stat -c %s "$picture")" -gt 20000 ] || fail "$picture is empty"
done
echo "12 charts, $marks marks of $stages stages, nothing on the console"
