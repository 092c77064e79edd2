#!/usr/bin/env bash
# SECURITY.md has a row for each of the 41 advisories, and every test that it names is one.
#   security_table_test.sh SOURCE BUILD
set -euo pipefail
tests=$(ctest --test-dir "$2" -N)
rows=0
while IFS='|' read -r _ number _ _ _ test _; do
  name=$(sed -n 's/^ *`\([^`]*\)` *$/\1/p' <<<"$test")
  [ -n "$name" ] || { echo "row $number names no test"; exit 1; }
  grep -qF "$name" <<<"$tests" || { echo "row $number: there is no test $name"; exit 1; }
  rows=$((rows + 1))
done < <(grep -E '^\| [0-9]+ \|' "$1/SECURITY.md")
[ "$rows" = 41 ] || { echo "$rows rows, not 41"; exit 1; }
echo "$rows rows"
