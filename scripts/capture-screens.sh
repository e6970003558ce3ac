#!/bin/sh
# Makes the pictures of README.md and docs/screens.md from loops that really run: docs/pictures/board.svg and page.png.
# Needs chromium (Debian package). The agent is the tests' scripted one; everything else is the program.
set -eu

. "$(dirname -- "$0")/environment.sh"
find_root "$0"
prepare test
cd -- "$root"
exec "$python" -m tests.screens.capture "${1:-docs/pictures}"
