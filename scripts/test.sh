#!/bin/sh
# Prepares .venv with the test dependencies and runs the tests.
#
#   scripts/test.sh              the tests that a change needs at once: minutes
#   scripts/test.sh --all        also those marked slow: real agents, kill loops, systemd, soak
#   scripts/test.sh -k plan      any other arguments go to pytest, and all tests may be chosen
set -eu

self=$0
while [ -L "$self" ]; do
    target=$(readlink -- "$self")
    case $target in
        /*) self=$target ;;
        *) self=$(dirname -- "$self")/$target ;;
    esac
done
. "$(dirname -- "$self")/environment.sh"
find_root "$self"

case ${1-} in
    '') set -- -m "not slow" ;;
    --all) shift ;;
esac
prepare test
cd -- "$root"
# Images for containers set this. Without byte code each of the many programs that the tests start compiles every
# module anew: a third of the whole time.
unset PYTHONDONTWRITEBYTECODE
# Most tests wait for real processes: a few at a time use the machine better. `-n 0` runs them one by one.
exec "$python" -m pytest -n "${CODEX_SELF_ITER_TEST_WORKERS:-4}" --dist worksteal "$@"
