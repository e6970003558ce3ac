#!/bin/sh
# Runs the demo and puts what it printed into README.md, between the session marks. Nothing in it is made up:
# only this machine's directories are replaced, and the lists behind the card are left out. The log (stderr) is left out: its lines are too wide for a page.
set -eu

. "$(dirname -- "$0")/environment.sh"
find_root "$0"
prepare run

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
XDG_CACHE_HOME=$scratch/cache XDG_STATE_HOME=$scratch/state NO_COLOR=1 \
    "$root/scripts/run-local.sh" >"$scratch/output" 2>"$scratch/log" || { cat "$scratch/output" "$scratch/log"; exit 1; }

{
    echo '```console'
    echo '$ ./scripts/run-local.sh 2>/tmp/demo.log'
    sed -e '/^Iterations$/,$d' -e "s#$scratch/cache#~/.cache#g" -e "s#$root/##g" "$scratch/output" |
        sed -e '$ { /^$/d }'
    echo '```'
} >"$scratch/session"

awk -v session="$scratch/session" '
    /<!-- session:start -->/ { print; while ((getline line < session) > 0) print line; skipping = 1; marks++ }
    /<!-- session:end -->/ { skipping = 0; marks++ }
    !skipping { print }
    END { if (marks != 2) exit 1 }
' "$root/README.md" >"$scratch/README.md" || die "README.md: needs one session:start and one session:end mark"
cat "$scratch/README.md" >"$root/README.md"
say "README.md has the session of $(date -u +%Y-%m-%d)."
